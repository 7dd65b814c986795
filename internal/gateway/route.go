package gateway

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarndb/tarn"
)

// routeOptions is what the startup parameter "options" says of where to go.
type routeOptions struct {
	endpoint, project string
	auth              string // how the client wants to prove itself; see bearerOption
}

// takeRoute takes the routing options out of a startup "options" value and
// returns what is left for Postgres. Every spelling a client may be able to
// produce is understood: endpoint=x, -c endpoint=x, -cendpoint=x,
// --endpoint=x, the same with project, and with %3D for the equals sign, which
// is right in a URL but reaches us from connection strings that are none.
func takeRoute(options string) (string, routeOptions, error) {
	var r routeOptions
	var left []string
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		w := words[i]
		setting := w
		next := i
		switch {
		case w == "-c" && i+1 < len(words):
			next = i + 1
			setting = words[next]
		case strings.HasPrefix(w, "-c"):
			setting = w[2:]
		case strings.HasPrefix(w, "--"):
			setting = w[2:]
		case strings.HasPrefix(w, "-"):
			setting = ""
		}
		name, value, ok := strings.Cut(strings.Replace(strings.Replace(setting, "%3D", "=", 1), "%3d", "=", 1), "=")
		var into *string
		switch {
		case ok && name == "endpoint":
			into = &r.endpoint
		case ok && name == "project":
			into = &r.project
		case ok && name == "auth":
			into = &r.auth
		default:
			left = append(left, words[i:next+1]...)
			i = next
			continue
		}
		switch {
		case value == "":
			return "", r, &fatal{code: codeRejected, msg: fmt.Sprintf("option %s has no value", name), hint: listHint}
		case *into != "" && *into != value:
			return "", r, &fatal{code: codeRejected, msg: fmt.Sprintf("options name two different %ss, %q and %q", name, *into, value), hint: listHint}
		}
		*into = value
		i = next
	}
	if r == (routeOptions{}) {
		return options, r, nil
	}
	return joinOptions(left), r, nil
}

// splitOptions cuts as Postgres's pg_split_opts does: at white space, with a
// backslash before a character that stands for itself.
func splitOptions(s string) []string {
	var words []string
	var w []byte
	in, escaped := false, false
	for i := 0; i < len(s); i++ {
		ch := s[i]
		switch {
		case escaped:
			w, in, escaped = append(w, ch), true, false
		case ch == '\\':
			escaped = true
		case isSpace(ch):
			if in {
				words = append(words, string(w))
			}
			w, in = w[:0], false
		default:
			w, in = append(w, ch), true
		}
	}
	if in {
		words = append(words, string(w))
	}
	return words
}

func joinOptions(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		for j := 0; j < len(w); j++ {
			if w[j] == '\\' || isSpace(w[j]) {
				b.WriteByte('\\')
			}
			b.WriteByte(w[j])
		}
	}
	return b.String()
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// uidPrefix begins the UID of every endpoint, and so tells a host name that
// routes from one that only leads here.
const uidPrefix = "ep-"

// named is the endpoint a TLS server name means, or "".
func (s *Server) named(serverName string) string {
	label, rest, _ := strings.Cut(strings.ToLower(serverName), ".")
	if s.c.Domain != "" && rest == strings.ToLower(s.c.Domain) || strings.HasPrefix(label, uidPrefix) {
		return label
	}
	return ""
}

// find leads a client to its endpoint. Address, server name and options may
// each say where; all that do must agree.
func (c *client) find(ctx context.Context, o routeOptions) (Route, error) {
	type way struct {
		key  RouteKey
		what string
	}
	ways := []way{{RouteKey{Address: c.local.Addr()}, "address " + c.local.Addr().String()}}
	if e := c.s.named(c.serverName); e != "" {
		ways = append(ways, way{RouteKey{Endpoint: e}, fmt.Sprintf("server name %q", c.serverName)})
	}
	if o.endpoint != "" {
		ways = append(ways, way{RouteKey{Endpoint: o.endpoint}, fmt.Sprintf("option endpoint=%s", o.endpoint)})
	}
	if o.project != "" {
		ways = append(ways, way{RouteKey{Project: o.project}, fmt.Sprintf("option project=%s", o.project)})
	}
	var found Route
	var by string
	pooled := false // whoever says so once means it
	for _, w := range ways {
		name, suffix := strings.CutSuffix(w.key.Endpoint, tarn.PoolerSuffix)
		w.key.Endpoint, pooled = name, pooled || suffix
		r, err := c.s.c.Router.Resolve(ctx, w.key)
		switch {
		case tarn.KindOf(err) == tarn.KindNotFound && w.key.Address.IsValid():
			continue // a shared address belongs to no endpoint
		case tarn.KindOf(err) == tarn.KindNotFound:
			return Route{}, &fatal{code: codeRejected, hint: listHint, err: err, msg: unknownRoute(w.key)}
		case err != nil:
			return Route{}, translate("find endpoint", err)
		case by == "":
			found, by = r, w.what
			pooled = pooled || r.Pooled
		case r.Endpoint.UID != found.Endpoint.UID:
			return Route{}, &fatal{code: codeRejected, hint: "Name one endpoint, or the same one each time.", msg: fmt.Sprintf(
				"%s means endpoint %s but %s means endpoint %s", by, found.Endpoint.UID, w.what, r.Endpoint.UID)}
		}
	}
	if by == "" {
		return Route{}, &fatal{code: codeRejected,
			msg:  "no endpoint was named, and address " + c.local.Addr().String() + " belongs to none",
			hint: "Connect to the endpoint's own host, or add options=endpoint=<id>. " + listHint}
	}
	found.Pooled = pooled
	return found, nil
}

func unknownRoute(k RouteKey) string {
	if k.Project != "" {
		return fmt.Sprintf("project %q does not exist or has no endpoint", k.Project)
	}
	return fmt.Sprintf("endpoint %q does not exist", k.Endpoint)
}
