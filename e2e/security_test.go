package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// The commands of docs/security.md, as they stand there.
func TestSecurityPage(t *testing.T) {
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlock.FindAllSubmatch(page, -1)
	if len(blocks) < 5 {
		t.Fatalf("found %d blocks of commands", len(blocks))
	}
	in := start(t)
	in.tarn("project", "create", "shop")
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "tarn")); err != nil {
		t.Fatal(err)
	}
	// jq is not everywhere; Python is, for the other tests.
	jq := "#!/bin/sh\nexec python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1][1:]])' \"$2\"\n"
	if err := os.WriteFile(filepath.Join(dir, "jq"), []byte(jq), 0o755); err != nil {
		t.Fatal(err)
	}
	p := in.profile()
	for _, b := range blocks {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", string(b[1]))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+in.config, "HOME="+in.config, "TARN_DATA="+in.data,
			"PATH="+dir+":"+os.Getenv("PATH"), "TARN_HOST="+p.Host, "TARN_TOKEN="+p.Token)
		if strings.Contains(string(b[1]), "--profile") { // a token in the environment goes before a profile's
			cmd.Env = append(cmd.Env, "TARN_TOKEN=")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s\n%v\n%s", b[1], err, out)
		}
	}
}
