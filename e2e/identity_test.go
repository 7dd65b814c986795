package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const password = "correct horse battery staple"

// typed runs a command with something on its standard input.
func (in *instance) typed(input string, args ...string) string {
	in.t.Helper()
	var out, errs bytes.Buffer
	cmd := in.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	if err := cmd.Run(); err != nil {
		in.t.Fatalf("tarn %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String()
}

// The published Python SDK against identities; what it does is in the program.
func TestIdentityWithPublishedSDK(t *testing.T) {
	in := start(t, "--token-life", "5s")
	in.tarn("project", "create", "shop")
	in.tarn("principal", "create", "eve@example.com")
	in.typed(password, "principal", "password", "eve@example.com")
	out := in.python("identity.py", strconv.Itoa(in.gateway), "eve@example.com", password)
	const want = "scim ok\nm2m and permissions ok\nroles ok\npasswords ok\nu2m ok\npool ok\n"
	if out != want {
		t.Errorf("the program printed:\n%swant:\n%s", out, want)
	}
}

var hiddenRequest = regexp.MustCompile(`name="request" value="([^"]+)"`)

// sign does a person's part in a browser: it opens a page, fills it in and
// follows where it is sent.
func sign(t *testing.T, address string, fields url.Values) (body string, status int) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	page, err := browser.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(page.Body)
	page.Body.Close()
	m := hiddenRequest.FindSubmatch(b)
	if err != nil || m == nil {
		t.Fatalf("no form at %s: %v %s", address, err, b)
	}
	fields.Set("request", string(m[1]))
	res, err := browser.PostForm(page.Request.URL.String(), fields)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err = io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), res.StatusCode
}

// TestLogin signs in as people and programs do, with the command line.
func TestLogin(t *testing.T) {
	in := start(t, "--token-life", "30s") // shorter than a token is renewed before its end: every command renews
	in.tarn("project", "create", "shop")
	in.tarn("principal", "create", "eve@example.com", "--display-name", "Eve")
	in.typed(password, "principal", "password", "eve@example.com")
	in.tarn("group", "create", "analysts", "eve@example.com")

	login := func(find *regexp.Regexp, answer func(found []string), args ...string) string {
		cmd := in.command(append([]string{"login", "--host", "http://" + in.api, "--profile", "eve"}, args...)...)
		var out bytes.Buffer
		cmd.Stdout = &out
		said, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for lines := bufio.NewScanner(said); lines.Scan(); {
			all.WriteString(lines.Text() + "\n")
			if m := find.FindStringSubmatch(lines.Text()); m != nil {
				answer(m)
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("tarn login: %v\n%s", err, all.String())
		}
		return out.String()
	}
	eve := url.Values{"name": {"eve@example.com"}, "password": {password}, "answer": {"allow"}}
	out := login(regexp.MustCompile(`Sign in at +(\S+)`), func(m []string) {
		if body, status := sign(t, m[1], eve); status != 200 || !strings.Contains(body, "Done") {
			t.Errorf("the browser ends with %d %s", status, body)
		}
	}, "--no-browser")
	if !strings.Contains(out, "as eve@example.com") {
		t.Errorf("login printed %q", out)
	}
	for range 3 { // each renews the token and uses the refresh token up
		if who := in.tarn("whoami", "--profile", "eve"); !strings.Contains(who, "eve@example.com") || !strings.Contains(who, "analysts") {
			t.Errorf("whoami printed %q", who)
		}
	}
	if said := in.refused(1, "project", "delete", "shop", "--yes", "--profile", "eve"); !strings.Contains(said, "CAN_MANAGE") {
		t.Errorf("a stranger deletes: %q", said)
	}
	if said := in.refused(1, "branch", "list", "--project", "shop", "--profile", "eve"); !strings.Contains(said, "tarn permission grant shop eve@example.com") {
		t.Errorf("the refusal does not say what to type: %q", said)
	}
	in.tarn("permission", "grant", "shop", "analysts", "can_use")
	in.tarn("branch", "list", "--project", "shop", "--profile", "eve")

	// As the group, in Postgres; the role is made in SQL by the owner.
	owner := in.connect(testContext(t, time.Minute), in.url("shop/production"))
	for _, sql := range []string{`CREATE EXTENSION IF NOT EXISTS databricks_auth`, `SELECT databricks_create_role('analysts', 'group')`} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	var preloaded string
	if err := owner.QueryRow(t.Context(), `SHOW shared_preload_libraries`).Scan(&preloaded); err != nil || !strings.HasPrefix(preloaded, "neon,databricks_auth") {
		t.Errorf("shared_preload_libraries = %q (%v)", preloaded, err)
	}
	var credential struct{ Token string }
	in.tarnJSON(&credential, "credential", "shop/production", "--profile", "eve")
	u, err := url.Parse(in.url("shop/production"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("analysts", credential.Token)
	var who string
	if err := in.connect(testContext(t, time.Minute), u.String()).QueryRow(t.Context(), `SELECT session_user`).Scan(&who); err != nil || who != "analysts" {
		t.Errorf("logged in as %q (%v)", who, err)
	}

	in.tarn("logout", "--profile", "eve")
	in.refused(1, "whoami", "--profile", "eve")

	out = login(regexp.MustCompile(`Open (\S+) on any device and enter the code +(\S+)`), func(m []string) {
		fields := url.Values{"user_code": {m[2]}}
		for k, v := range eve {
			fields[k] = v
		}
		if body, status := sign(t, m[1], fields); status != 200 || !strings.Contains(body, "You are signed in") {
			t.Errorf("the device page ends with %d %s", status, body)
		}
	}, "--device")
	if !strings.Contains(out, "as eve@example.com") {
		t.Errorf("login --device printed %q", out)
	}

	var sp struct {
		ApplicationID string `json:"applicationId"`
	}
	in.tarnJSON(&sp, "principal", "create", "--service", "nightly")
	secret := in.tarn("principal", "secret", "create", "nightly", "--ttl", "1d")
	out = in.typed(secret, "login", "--host", "http://"+in.api, "--profile", "job", "--client-id", sp.ApplicationID, "--client-secret-file", "-")
	if !strings.Contains(out, sp.ApplicationID) {
		t.Errorf("login --client-id printed %q", out)
	}
	in.tarn("whoami", "--profile", "job")
	in.tarn("principal", "disable", "nightly")
	in.refused(1, "whoami", "--profile", "job")
	in.tarn("principal", "delete", "nightly")
	if list := in.tarn("principal", "list"); strings.Contains(list, "nightly") || !strings.Contains(list, "eve@example.com") {
		t.Errorf("principals:\n%s", list)
	}
	info, err := os.Stat(filepath.Join(in.config, "tarn", "profiles", "eve.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the profile's mode: %v %v", info.Mode(), err)
	}
	var log bytes.Buffer
	b, err := os.ReadFile(filepath.Join(in.data, "log", "tarn.log"))
	if err != nil {
		t.Fatal(err)
	}
	log.Write(b)
	var p struct {
		SignIn struct {
			Refresh string `json:"refresh_token"`
		} `json:"sign_in"`
	}
	if b, err = os.ReadFile(filepath.Join(in.config, "tarn", "profiles", "eve.json")); err != nil || json.Unmarshal(b, &p) != nil || p.SignIn.Refresh == "" {
		t.Fatalf("no refresh token in the profile: %v %s", err, b)
	}
	for _, s := range []string{p.SignIn.Refresh, strings.TrimSpace(secret), password} {
		if strings.Contains(log.String(), s) {
			t.Error("a secret stands in the log")
		}
	}
}
