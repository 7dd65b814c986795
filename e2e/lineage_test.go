package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Who logged in, who was refused, and what came from what, as commands show it.
func TestAuditAndLineage(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	url := in.url("shop/production")
	in.connect(testContext(t, time.Minute), url)
	c, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	right := c.Password
	c.Password = "eyJ.wrong.token"
	for range 3 {
		if wrong, err := pgx.ConnectConfig(testContext(t, time.Minute), c); err == nil {
			wrong.Close(t.Context())
			t.Fatal("logged in with a wrong token")
		}
	}
	out := in.tarn("audit", "--since", "-1h")
	for _, want := range []string{"gateway.login", "projects/shop/branches/production/endpoints/primary", "method=token", "127.0.0.1", "postgres.generateDatabaseCredential"} {
		if !strings.Contains(out, want) {
			t.Errorf("the audit lacks %q:\n%s", want, out)
		}
	}
	if out = in.tarn("audit", "--denied", "--json", "--action", "gateway.login", "--principal", c.User); strings.Count(out, "\n") != 1 || !strings.Contains(out, "28P01: password authentication failed") {
		t.Errorf("refused logins, want one row until their minute is over:\n%s", out)
	}
	if strings.Contains(out+in.tarn("audit"), right) {
		t.Error("the audit tells a secret")
	}
	if out = in.tarn("audit", "--principal", "nobody@example.com"); strings.Contains(out, "login") {
		t.Errorf("of somebody else:\n%s", out)
	}
	in.tarn("sql", "CREATE TABLE lake.raw.users AS SELECT 1 AS id, 'ann' AS name")
	in.tarn("sql", "CREATE TABLE lake.gold.people AS SELECT id AS who, upper(name) AS name FROM lake.raw.users")
	in.tarn("sync", "create", "--source", "lake.gold.people", "--name", "shop.public.people", "--key", "who")
	out = in.tarn("lineage", "lake.raw.users", "--depth", "5")
	for _, want := range []string{"downstream  1      lake.raw.users    lake.gold.people    CREATE_TABLE_AS  statements/", "downstream  2      lake.gold.people  shop.public.people  SYNCED_TABLE     pipelines/"} {
		if !strings.Contains(out, want) || strings.Contains(out, "upstream") {
			t.Errorf("lineage lacks %q:\n%s", want, out)
		}
	}
	var steps []struct{ Source, Target, Direction string }
	in.tarnJSON(&steps, "lineage", "shop.public.people", "--column", "name", "--upstream", "--depth", "2")
	if len(steps) != 2 || steps[0].Source != "lake.gold.people.name" || steps[1].Source != "lake.raw.users.name" || steps[1].Target != "lake.gold.people.name" {
		t.Errorf("%+v", steps)
	}
	const asked = "SELECT statement_type, executed_by, execution_status, produced_rows FROM system.query.history WHERE statement_text LIKE 'CREATE TABLE lake.gold.people%'"
	for end := time.Now().Add(time.Minute); ; { // a statement is recorded right after its answer
		if out = in.tarn("sql", "--format", "csv", asked); strings.Count(out, "\n") == 2 && strings.Contains(out, c.User+",FINISHED,1") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the history of statements: %s", out)
		}
	}
	if out = in.refused(2, "audit", "--since", "0/16B3748"); !strings.Contains(out, "events have times") {
		t.Error(out)
	}
}
