package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn/client"
)

// site is a Tarn of its own and a pgbouncer before the same compute.
type site struct {
	dir     string
	ports   [3]int // API, gateway, pgbouncer
	control int    // PID of the process the gateway is in
	bouncer *exec.Cmd
	compute computeSocket
	woke    []float64 // how long clients waited for a compute that was stopped, ms

	direct, pooled                     string
	peerSession, peerPooled, peerPlain string
}

// computeSocket is where the compute itself is reached.
type computeSocket struct {
	dir  string
	port int
}

const password = "bench"

func open(ctx context.Context) (s *site, err error) {
	bouncer, err := exec.LookPath("pgbouncer")
	if err != nil {
		bouncer = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(bouncer); err != nil {
		return nil, errors.New("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
	}
	s = &site{}
	if s.dir, err = os.MkdirTemp("", "tarn-bench-gateway-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return s, err
	}
	for i := range s.ports {
		if s.ports[i], err = freePort(); err != nil {
			return s, err
		}
	}
	if _, err := s.tarn(ctx, "up", "--detach", "--data", s.data(), "--listen", "127.0.0.1:"+strconv.Itoa(s.ports[0]), "--gateway-port", strconv.Itoa(s.ports[1])); err != nil {
		return s, err
	}
	if _, err := s.tarn(ctx, "project", "create", "bench"); err != nil {
		return s, err
	}
	admin, err := s.tarn(ctx, "connection-string", "bench", "--credential")
	if err != nil {
		return s, err
	}
	if out, err := exec.CommandContext(ctx, "pgbench", "-i", "-q", "-s", "2", admin).CombinedOutput(); err != nil {
		return s, fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	c, err := pgx.Connect(ctx, admin)
	if err != nil {
		return s, err
	}
	defer c.Close(ctx)
	for _, q := range []string{`CREATE ROLE bench LOGIN PASSWORD '` + password + `'`, `GRANT SELECT ON ALL TABLES IN SCHEMA public TO bench`} {
		if _, err := c.Exec(ctx, q); err != nil {
			return s, fmt.Errorf("%s: %w", q, err)
		}
	}
	return s, s.begin(ctx, bouncer)
}

func (s *site) data() string { return filepath.Join(s.dir, "data") }

// begin finds the processes and starts pgbouncer.
func (s *site) begin(ctx context.Context, bouncer string) error {
	var st client.Status
	var at client.Connection
	for what, into := range map[string]any{"status": &st, "connection-string bench": &at} {
		out, err := s.tarn(ctx, append(strings.Fields(what), "--json")...)
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(out), into); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	for _, p := range st.Processes {
		switch p.Role {
		case "control":
			s.control = p.PID
		case "postgres":
			s.compute = computeSocket{p.SocketDir, p.Port}
		}
	}
	if s.control == 0 || s.compute.dir == "" {
		return fmt.Errorf("no control process or no compute in %+v", st.Processes)
	}
	url := func(host string, port int, database, mode string) string {
		return fmt.Sprintf("postgresql://bench:%s@%s/%s?sslmode=%s", password, net.JoinHostPort(host, strconv.Itoa(port)), database, mode)
	}
	s.direct = url(at.Host, at.Port, at.Database, "require")
	s.pooled = url(at.PooledHost, at.Port, at.Database, "require")
	s.peerSession = url("127.0.0.1", s.ports[2], "session", "require")
	s.peerPooled = url("127.0.0.1", s.ports[2], "pooled", "require")
	s.peerPlain = url("127.0.0.1", s.ports[2], "pooled", "disable")

	stat, err := os.Stat(s.compute.dir)
	if err != nil {
		return err
	}
	owner, err := user.LookupId(strconv.Itoa(int(stat.Sys().(*syscall.Stat_t).Uid)))
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "bouncer")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := writeCertificate(dir); err != nil {
		return err
	}
	to := fmt.Sprintf("host=%s port=%d dbname=%s user=bench", s.compute.dir, s.compute.port, at.Database)
	ini := fmt.Sprintf(`[databases]
session = %s pool_mode=session
pooled = %s pool_mode=transaction
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s/users
client_tls_sslmode = allow
client_tls_cert_file = %s/tls.crt
client_tls_key_file = %s/tls.key
max_client_conn = 12000
default_pool_size = 50
ignore_startup_parameters = extra_float_digits,options
log_connections = 0
log_disconnections = 0
`, to, to, s.ports[2], dir, dir, dir)
	for name, text := range map[string]string{"pgbouncer.ini": ini, "users": `"bench" "` + password + `"`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	args := []string{"-q", filepath.Join(dir, "pgbouncer.ini")}
	if os.Getuid() == 0 {
		args = append([]string{"-u", owner.Username}, args...)
	}
	s.bouncer = exec.Command(bouncer, args...)
	s.bouncer.Stderr = os.Stderr
	if err := s.bouncer.Start(); err != nil {
		return err
	}
	for tries := 0; ; tries++ {
		c, err := pgx.Connect(ctx, s.peerPooled+"&default_query_exec_mode=simple_protocol")
		if err == nil {
			return c.Close(ctx)
		}
		if tries == 50 {
			return fmt.Errorf("connect to pgbouncer: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("connect to pgbouncer: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s *site) tarn(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join("build", "tarn"), args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(s.dir, "config"), "HOME="+s.dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("tarn %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (s *site) close() error {
	var errs []error
	if s.bouncer != nil && s.bouncer.Process != nil {
		errs = append(errs, s.bouncer.Process.Signal(syscall.SIGTERM))
		s.bouncer.Wait() // how it ends says nothing
	}
	_, err := s.tarn(context.Background(), "down", "--data", s.data())
	return errors.Join(append(errs, err, os.RemoveAll(s.dir))...)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// writeCertificate makes pgbouncer's; it is of the kind the gateway's is.
func writeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(filepath.Join(dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k}), 0o644))
}
