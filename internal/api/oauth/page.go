package oauth

import (
	"html/template"
	"net/http"
	"strings"

	"github.com/tarndb/tarn"
)

// page is what a sign-in page shows; with Title it only says something.
type page struct {
	Title, Text string

	Device   bool
	Request  string // id of the sign-in, or the device form's own value
	Client   string
	Where    string // host and port the code goes to
	UserCode string
	Name     string
	Error    string
	status   int // HTTP
}

// The page loads nothing and runs nothing. It may be sent on to loopback, where
// the program that asked listens.
const policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; " +
	"form-action 'self' http://localhost:* http://127.0.0.1:* http://[::1]:*"

func show(w http.ResponseWriter, status int, p page) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	w.WriteHeader(status)
	_ = pages.Execute(w, p) // a failed write means the browser is gone
}

// lost says that a sign-in cannot go on here.
func (s *server) lost(w http.ResponseWriter, err error) {
	switch tarn.KindOf(err) {
	case tarn.KindNotFound, tarn.KindDenied:
		show(w, http.StatusBadRequest, page{Title: "This sign-in cannot go on", Text: "It is over, was answered already, or was begun in another browser. Start it again from the program that sent you here."})
	default:
		s.c.Log.Error("sign-in not served", "err", err)
		show(w, http.StatusInternalServerError, page{Title: "Something went wrong", Text: "The server could not look this up. Try again; its log says more."})
	}
}

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

var pages = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{if .Title}}{{.Title}}{{else}}Sign in{{end}} · Tarn</title>
<style>
:root{color-scheme:light dark;--bg:#f6f8f9;--card:#fff;--line:#c5d0d6;--ink:#10212b;--ink2:#4a606d;--accent:#0b7285;--on:#fff;--bad:#c0312b;--badbg:#fde8e6}
@media (prefers-color-scheme:dark){:root{--bg:#0b1418;--card:#111d23;--line:#365060;--ink:#e6eef1;--ink2:#a3b6c0;--accent:#4cc3d0;--on:#06181c;--bad:#ff8078;--badbg:#3a1a19}}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--bg);color:var(--ink);font:14px/20px system-ui,sans-serif}
main{box-sizing:border-box;width:min(360px,100vw - 32px);padding:24px;background:var(--card);border:1px solid var(--line);border-radius:10px}
h1{margin:0 0 8px;font-size:20px;line-height:28px;font-weight:650}
p{margin:0 0 16px;color:var(--ink2)}b{color:var(--ink)}
label{display:block;margin:0 0 16px;font-weight:550}
input{box-sizing:border-box;width:100%;margin-top:4px;padding:8px 12px;font:inherit;color:inherit;background:var(--bg);border:1px solid var(--line);border-radius:8px}
input:focus-visible,button:focus-visible{outline:2px solid var(--accent);outline-offset:1px}
.code{font:600 20px/28px ui-monospace,monospace;letter-spacing:2px;text-transform:uppercase}
.row{display:flex;gap:8px}button{flex:1;padding:8px 12px;font:inherit;font-weight:550;border-radius:6px;border:1px solid var(--line);background:none;color:inherit;cursor:pointer}
.go{background:var(--accent);color:var(--on);border-color:var(--accent)}
.bad{padding:8px 12px;border-radius:8px;color:var(--bad);background:var(--badbg)}
</style></head><body><main>
{{if .Title}}<h1>{{.Title}}</h1><p>{{.Text}}</p>{{else}}
<h1>Sign in to Tarn</h1>
{{if .Device}}<p>Enter the code that the program shows, and only if you started it yourself.</p>
{{else}}<p><b>{{.Client}}</b> on this computer ({{.Where}}) asks to act as you. Go on only if you started it yourself.</p>{{end}}
{{if .Error}}<p class="bad" role="alert">{{.Error}}</p>{{end}}
<form method="post">
<input type="hidden" name="request" value="{{.Request}}">
{{if .Device}}<label>Code<input class="code" name="user_code" value="{{.UserCode}}" autocomplete="off" spellcheck="false" required></label>{{end}}
<label>Name<input name="name" value="{{.Name}}" autocomplete="username" autocapitalize="none" spellcheck="false" required{{if not .Name}} autofocus{{end}}></label>
<label>Password, or an access token<input name="password" type="password" autocomplete="current-password" required{{if .Name}} autofocus{{end}}></label>
<div class="row"><button class="go" name="answer" value="allow">Sign in</button><button name="answer" value="deny"{{if not .Device}} formnovalidate{{end}}>Cancel</button></div>
</form>{{end}}
</main></body></html>
`))
