package engine

// Kill ends the process as a crash does.
func Kill(p *Process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running.cmd.Process.Kill()
}
