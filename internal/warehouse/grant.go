package warehouse

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
)

// securable reads [TABLE|VIEW|SCHEMA|DATABASE|CATALOG] name or METASTORE.
func (c *command) securable() (tarn.Securable, error) {
	whole := func(n int) ([]string, error) {
		p, err := c.parts()
		if err == nil && len(p) > n {
			err = tarn.Invalid("name %s has too many parts", strings.Join(p, "."))
		}
		return p, err
	}
	switch {
	case c.take("metastore"):
		return tarn.Securable{}, nil
	case c.take("catalog"):
		p, err := whole(1)
		if err != nil {
			return tarn.Securable{}, err
		}
		return tarn.CatalogSecurable(p[0]), nil
	case c.take("schema"), c.take("database"):
		return c.schemaName()
	}
	_ = c.take("table") || c.take("view")
	n, err := c.table()
	return n.Securable(), err
}

// schemaName reads [catalog.]schema.
func (c *command) schemaName() (tarn.Securable, error) {
	p, err := c.parts()
	switch {
	case err != nil:
		return tarn.Securable{}, err
	case len(p) == 1:
		return tarn.SchemaSecurable(c.catalog, p[0]), nil
	case len(p) == 2:
		return tarn.SchemaSecurable(p[0], p[1]), nil
	}
	return tarn.Securable{}, tarn.Invalid("name %s: want catalog.schema", strings.Join(p, "."))
}

// principal reads who a grant is about.
func (c *cursor) principal() (string, error) {
	if t := c.next(); !t.name() && t.kind != lexString {
		return "", c.want("a principal, as in `ann@example.com`,")
	}
	name := c.next().value()
	c.i++
	if c.next().sign("@") {
		return "", c.want("an address in backticks, as in `ann@example.com`,")
	}
	return name, nil
}

// grant does GRANT privileges ON object TO principal, and REVOKE … FROM.
func (c *command) grant(ctx context.Context) error {
	revoke := c.next().is("revoke")
	var privileges []tarn.Privilege
	for more := true; more; more = c.next().sign(",") {
		var words []string
		for c.i++; c.next().kind == lexWord && !c.next().is("on"); c.i++ {
			words = append(words, c.next().text)
		}
		if len(words) == 0 {
			return c.want("a privilege")
		}
		p, err := tarn.ParsePrivilege(strings.Join(words, " "))
		if err != nil {
			return err
		}
		privileges = append(privileges, p)
	}
	if !c.take("on") {
		return c.want("ON and an object")
	}
	on, err := c.securable()
	if err != nil {
		return err
	}
	if word := map[bool]string{false: "to", true: "from"}[revoke]; !c.take(word) {
		return c.want(strings.ToUpper(word) + " and a principal")
	}
	who, err := c.principal()
	if err == nil {
		err = c.done()
	}
	if err != nil {
		return err
	}
	change := catalog.GrantChange{Principal: who, Add: privileges}
	if revoke {
		change.Add, change.Remove = nil, privileges
	}
	c.act("updateGrants", "permissions/"+strings.ToLower(string(on.Type()))+"/"+on.FullName(), change.String())
	return c.w.config.Catalog.For(c.who).ChangeGrants(ctx, on, []catalog.GrantChange{change})
}

// showGrants does SHOW GRANTS [principal] ON object: what was granted on it and on
// what holds it, as far as who asks may see that.
func (c *command) showGrants(ctx context.Context) (err error) {
	of := ""
	if !c.next().is("on") {
		if of, err = c.principal(); err != nil {
			return err
		}
	}
	if !c.take("on") {
		return c.want("ON and an object")
	}
	on, err := c.securable()
	if err == nil {
		err = c.done()
	}
	if err != nil {
		return err
	}
	mine, err := c.w.config.Catalog.For(c.who).SeenGrants(ctx, on, of)
	if err != nil {
		return err
	}
	gs, err := c.w.config.Catalog.Grants().Effective(ctx, on, of)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, g := range gs {
		if mine != nil && !slices.Contains(mine, g.Principal) {
			continue
		}
		for _, p := range g.Privileges {
			rows = append(rows, []string{g.Principal, p.Words(), string(g.On.Type()), g.On.FullName()})
		}
	}
	return c.answer("Principal ActionType ObjectType ObjectKey", rows)
}

// Audit keeps what was done; *catalog.Audit is one.
type Audit interface {
	Record(ctx context.Context, e catalog.Event) error
}

// act says what the statement does to the catalog, in the words of the API's own
// call for it; path is behind the API's root.
func (c *command) act(action, path, detail string) {
	c.event = catalog.Event{Service: "catalog", Action: action, Object: "/api/2.1/unity-catalog/" + path, Detail: detail}
}

// audited keeps what changes the catalog, and what was refused; rows that change
// are in the tables' histories.
func (c *command) audited(ctx context.Context, err error) {
	kind := tarn.KindOf(err)
	e := c.event
	if c.w.config.Audit == nil || e.Action == "" && (err == nil || kind != tarn.KindDenied) {
		return
	}
	if e.Action == "" {
		e.Service, e.Action, e.Object = "sql", strings.ToLower(c.statement.Status().Kind), "/api/2.0/sql/statements"
	}
	e.Time, e.ID, e.RequestID, e.Principal = time.Now(), uuid.NewString(), c.statement.ID, c.who.Name
	e.SourceIP, e.Agent, e.Status = c.statement.Address, c.statement.Agent, 200
	if err != nil {
		e.Status = map[tarn.Kind]int32{tarn.KindInvalid: 400, tarn.KindConflict: 400, tarn.KindNotFound: 404, tarn.KindDenied: 403, tarn.KindUnavailable: 503}[kind]
		if e.Status == 0 {
			e.Status = 500
		}
		e.Error = strings.ToUpper(strings.ReplaceAll(kind.String(), " ", "_")) + ": " + err.Error()
	}
	const most = 2048 // bytes of a text that somebody else chose
	for _, s := range []*string{&e.Object, &e.Detail, &e.Error, &e.Agent} {
		*s = strings.ToValidUTF8((*s)[:min(len(*s), most)], "?")
	}
	// What was done is told even when the statement's time is over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := c.w.config.Audit.Record(ctx, e); err != nil {
		c.w.config.Log.ErrorContext(ctx, "event not audited", "path", e.Object, "err", err)
	}
}
