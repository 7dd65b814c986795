package e2e

import (
	"strings"
	"testing"
)

func TestDatabasesAsCatalogs(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	out := in.python("catalogs.py", in.url("shop/production"))
	for _, want := range []string{
		"['databricks-postgres=databricks_postgres']\n",
		"projects/shop/branches/production/databases/reports Reports of 2026\n", "conflict: ",
		"projects/shop/branches/production/databases/reports reports\n",
		"['lake', 'shop_reports', 'system'] ['shop_reports.public']\n",
		"shop_reports.public.sales FOREIGN what was sold [('id', 'bigint', False), ('amount', 'decimal(10,2)', False), ('at', 'timestamp', True)]\n",
		"shop_reports.public.totals VIEW - [('total', 'string', True)]\n",
		"in use: ", "registered as catalog shop_reports",
		"shop_new fresh ['shop_new', 'shop_reports']\n", "taken: ", "gone\ngone\n",
		"['databricks-postgres=databricks_postgres', 'fresh=fresh']\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}
