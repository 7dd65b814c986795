# Databases of a branch and databases as catalogs, by the published SDK.
import sys

import psycopg
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import AlreadyExists, NotFound, ResourceAlreadyExists
from databricks.sdk.service.database import DatabaseCatalog
from databricks.sdk.service.postgres import Catalog, CatalogCatalogSpec, Database, DatabaseDatabaseSpec, FieldMask

w = WorkspaceClient()
branch = "projects/shop/branches/production"
owner = next(iter(w.postgres.list_databases(parent=branch))).status.role


def ids():
    return [d.status.database_id + "=" + d.status.postgres_database for d in w.postgres.list_databases(parent=branch)]


print(ids())
made = w.postgres.create_database(parent=branch, database_id="reports", database=Database(spec=DatabaseDatabaseSpec(postgres_database="Reports of 2026", role=owner))).wait()
print(made.name, made.status.postgres_database)
try:
    w.postgres.create_database(parent=branch, database_id="reports", database=Database(spec=DatabaseDatabaseSpec(postgres_database="other", role=owner))).wait()
except AlreadyExists as e:
    print("conflict:", e)
renamed = w.postgres.update_database(name=made.name, database=Database(spec=DatabaseDatabaseSpec(postgres_database="reports", role=owner)), update_mask=FieldMask(["spec.postgres_database"])).wait()
print(renamed.name, renamed.status.postgres_database)

with psycopg.connect(sys.argv[1].replace("/databricks_postgres", "/reports")) as conn:
    conn.execute("CREATE TABLE sales (id bigint PRIMARY KEY, amount numeric(10,2) NOT NULL, at timestamptz); COMMENT ON TABLE sales IS 'what was sold'")
    conn.execute("CREATE VIEW totals AS SELECT sum(amount) AS total FROM sales")

w.postgres.create_catalog(catalog_id="shop_reports", catalog=Catalog(spec=CatalogCatalogSpec(branch=branch, postgres_database="reports"))).wait()
print(sorted(c.name for c in w.catalogs.list()), [s.full_name for s in w.schemas.list(catalog_name="shop_reports")])
for t in w.tables.list(catalog_name="shop_reports", schema_name="public"):
    print(t.full_name, t.table_type.value, t.comment or "-", [(c.name, c.type_text, c.nullable) for c in t.columns])
try:
    w.postgres.delete_database(name=made.name).wait()
except Exception as e:
    print("in use:", e)

made = w.database.create_database_catalog(DatabaseCatalog(name="shop_new", database_instance_name="shop", database_name="fresh", create_database_if_not_exists=True))
print(made.name, made.database_name, [c.name for c in w.database.list_database_catalogs(instance_name="shop")])
try:
    w.database.create_database_catalog(DatabaseCatalog(name="lake", database_instance_name="shop", database_name="fresh"))
except ResourceAlreadyExists as e:
    print("taken:", e)
w.database.delete_database_catalog(name="shop_new")
w.postgres.delete_catalog(name="catalogs/shop_reports").wait()
w.postgres.delete_database(name=branch + "/databases/reports").wait()
for gone in (lambda: w.postgres.get_catalog(name="catalogs/shop_reports"), lambda: w.database.get_database_catalog(name="shop_new")):
    try:
        gone()
    except NotFound:
        print("gone")
print(ids())
