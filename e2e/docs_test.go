package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The commands of the quick start and of operations work as they stand, in order,
// on a new Tarn.
func TestQuickStart(t *testing.T) {
	in := start(t)
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "tarn")); err != nil {
		t.Fatal(err)
	}
	frame := regexp.MustCompile("(?s)\n```sh\n(.*?)```")
	for _, page := range []string{"quickstart.md", "operations.md"} {
		text, err := os.ReadFile(filepath.Join("..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		frames := frame.FindAllSubmatch(text, -1)
		if len(frames) < 4 {
			t.Errorf("%s has %d frames of commands", page, len(frames))
		}
		for _, f := range frames {
			cmd := exec.CommandContext(t.Context(), "bash", "-euxo", "pipefail", "-c", string(f[1]))
			cmd.Dir, cmd.Env = dir, append(in.command().Env, "PATH="+bin+":"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", page, err, out)
			}
		}
	}
}
