"""Every method of the database and postgres services of the published SDK.

A method either does what its documentation says, which a check asserts by
reading what it did, or stands in docs/compatibility.md with the reason, and is
then refused. One that is in neither fails the program, and so does one that is
in both.

usage: conformance_sdk.py COMPATIBILITY.md LAKE_FOLDER GATEWAY_PORT
"""

import datetime
import functools
import inspect
import re
import sys
import time
import traceback
import uuid

import psycopg
import pyarrow as pa
from deltalake import write_deltalake
from databricks.sdk import WorkspaceClient
from databricks.sdk.common.types.fieldmask import FieldMask
from databricks.sdk.errors import AlreadyExists, BadRequest, DatabricksError, NotFound, ResourceAlreadyExists, NotImplemented as NotThere
from databricks.sdk.service import database as db
from databricks.sdk.service import postgres as pg
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

compatibility, lake, port = sys.argv[1:]
really_sleep = time.sleep
time.sleep = lambda s: really_sleep(min(s, 0.05))  # the SDK polls operations; they end sooner than it thinks

w = WorkspaceClient()
me = w.current_user.me().user_name
services = {"database": (db.DatabaseAPI, w.database), "postgres": (pg.PostgresAPI, w.postgres)}

succeeded = set()  # methods called without an error
checks = []


def methods():
    """All methods of both services that send a request of their own."""
    for service, (api, _) in services.items():
        for name, f in vars(api).items():
            if inspect.isfunction(f) and not name.startswith(("_", "wait_")) and not name.endswith("_and_wait"):
                yield service + "." + name


def watch(service, client, name):
    f = getattr(client, name)

    @functools.wraps(f)
    def call(*args, **kwargs):
        out = f(*args, **kwargs)
        if inspect.isgenerator(out):
            out = iter(list(out))
        succeeded.add(service + "." + name)
        return out

    setattr(client, name, call)


for m in methods():
    watch(m.split(".")[0], services[m.split(".")[0]][1], m.split(".")[1])


def covers(*names):
    def register(f):
        checks.append((f, names))
        return f

    return register


def same(got, want, what=""):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def refused(error, f, *args, **kwargs):
    """Calls f, which must be refused with error; list calls are read."""
    try:
        out = f(*args, **kwargs)
        if inspect.isgenerator(out) or hasattr(out, "__next__"):
            list(out)
    except error as e:
        return e
    raise AssertionError(f"{f.__name__} was not refused with {error.__name__}")


def gone(f, *args):
    return refused(NotFound, f, *args)


def until(what, look):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if got := look():
            return got
        really_sleep(0.05)
    raise AssertionError("waited two minutes for " + what)


# ---- what is shared by the checks ------------------------------------------------

P = "projects/conf"
MAIN = P + "/branches/production"
PRIMARY = MAIN + "/endpoints/primary"
DATABASE = MAIN + "/databases/databricks-postgres"


def login(endpoint, token, **more):
    host = w.postgres.get_endpoint(name=endpoint).status.hosts.host
    return psycopg.connect(host=host, port=port, dbname="databricks_postgres", user=me, password=token, sslmode="require", **more)


def sql(text, branch="production", project="conf"):
    endpoint = f"projects/{project}/branches/{branch}/endpoints/primary"
    with login(endpoint, w.postgres.generate_database_credential(endpoint=endpoint).token, autocommit=True) as c:
        cur = c.execute(text)
        return cur.fetchall() if cur.description else None


# ---- postgres: projects ------------------------------------------------------------


@covers("postgres.create_project", "postgres.get_project", "postgres.list_projects", "postgres.update_project", "postgres.get_operation")
def projects():
    op = w.postgres.create_project(project_id="conf", project=pg.Project(spec=pg.ProjectSpec(
        display_name="Conformance", history_retention_duration=Duration(seconds=172800), budget_policy_id="policy-1",
        custom_tags=[pg.ProjectCustomTag(key="team", value="a")])))
    same(w.postgres.get_operation(name=op.name()).name, op.name(), "operation")
    made = op.wait()
    same(made.name, P)
    got = w.postgres.get_project(name=P)
    same((got.status.display_name, got.status.owner, got.status.budget_policy_id), ("Conformance", me, "policy-1"))
    same(got.status.history_retention_duration.seconds, 172800)
    same([(t.key, t.value) for t in got.status.custom_tags], [("team", "a")])
    same((got.project_id, got.spec, got.status.default_branch), ("conf", None, MAIN))
    assert got.uid and got.create_time and not got.delete_time
    refused(AlreadyExists, w.postgres.create_project, project_id="conf", project=pg.Project())
    for bad in ("Conf", "9conf", "conf_1", "c" * 64, "-c"):
        refused(BadRequest, w.postgres.create_project, project_id=bad, project=pg.Project())
    gone(w.postgres.get_project, "projects/nobody")
    # Terraform's mask names what only a create can say.
    w.postgres.update_project(name=P, update_mask=FieldMask(["initial_branch_spec", "initial_endpoint_spec", "spec"]), project=pg.Project(
        spec=pg.ProjectSpec(display_name="Renamed", custom_tags=[pg.ProjectCustomTag(key="team", value="b")]))).wait()
    w.postgres.update_project(name=P, update_mask=FieldMask(["*"]), project=pg.Project(spec=pg.ProjectSpec(budget_policy_id="policy-2"))).wait()
    got = w.postgres.get_project(name=P).status
    same((got.display_name, got.budget_policy_id, [t.value for t in got.custom_tags]), ("Renamed", "policy-2", ["b"]))
    w.postgres.update_project(name=P, update_mask=FieldMask(["spec.custom_tags"]), project=pg.Project(spec=pg.ProjectSpec(custom_tags=[]))).wait()
    same(w.postgres.get_project(name=P).status.custom_tags or [], [], "cleared tags")
    refused(BadRequest, w.postgres.update_project, name=P, update_mask=FieldMask(["spec.nonsense"]), project=pg.Project())
    assert P in [p.name for p in w.postgres.list_projects(page_size=1)]


@covers("postgres.delete_project", "postgres.undelete_project")
def deleted_projects():
    w.postgres.create_project(project_id="gone", project=pg.Project()).wait()
    w.postgres.delete_project(name="projects/gone").wait()
    assert "projects/gone" not in [p.name for p in w.postgres.list_projects()], "a deleted project is listed"
    shown = {p.name: p for p in w.postgres.list_projects(show_deleted=True)}["projects/gone"]
    assert shown.delete_time and shown.purge_time.ToDatetime() > shown.delete_time.ToDatetime()
    same(w.postgres.get_project(name="projects/gone").delete_time.ToDatetime(), shown.delete_time.ToDatetime())
    w.postgres.undelete_project(name="projects/gone").wait()
    back = w.postgres.get_project(name="projects/gone")
    assert not back.delete_time and not back.purge_time
    same([b.name for b in w.postgres.list_branches(parent="projects/gone")], ["projects/gone/branches/production"])
    same(sql("SELECT 1", project="gone"), [(1,)], "a project that came back")
    refused(BadRequest, w.postgres.undelete_project, name="projects/gone")
    w.postgres.delete_project(name="projects/gone", purge=True).wait()
    assert "projects/gone" not in [p.name for p in w.postgres.list_projects(show_deleted=True)]
    gone(w.postgres.get_project, "projects/gone")


# ---- postgres: branches ------------------------------------------------------------


@covers("postgres.create_branch", "postgres.get_branch", "postgres.list_branches", "postgres.update_branch")
def branches():
    sql("CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items SELECT generate_series(1, 3)")
    w.postgres.create_branch(parent=P, branch_id="dev", branch=pg.Branch(spec=pg.BranchSpec(source_branch=MAIN, no_expiry=True))).wait()
    got = w.postgres.get_branch(name=P + "/branches/dev")
    same((got.parent, got.branch_id, got.status.source_branch, got.status.current_state.value, got.spec), (P, "dev", MAIN, "READY", None))
    same(sql("SELECT count(*) FROM items", "dev"), [(3,)])
    w.postgres.create_branch(parent=P, branch_id="short", branch=pg.Branch(spec=pg.BranchSpec(ttl=Duration(seconds=3600)))).wait()
    assert w.postgres.get_branch(name=P + "/branches/short").status.expire_time.ToDatetime() > datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    refused(AlreadyExists, w.postgres.create_branch, parent=P, branch_id="dev", branch=pg.Branch())
    w.postgres.create_branch(parent=P, branch_id="short", replace_existing=True, branch=pg.Branch(spec=pg.BranchSpec(no_expiry=True))).wait()
    same(w.postgres.get_branch(name=P + "/branches/short").status.expire_time, None, "replaced")
    for mask, spec, look in [
        ("spec.is_protected", pg.BranchSpec(is_protected=True), lambda s: s.is_protected),
        ("spec", pg.BranchSpec(is_protected=False, no_expiry=True, source_branch=MAIN), lambda s: not s.is_protected and not s.expire_time),
        ("spec.expiration", pg.BranchSpec(ttl=Duration(seconds=600)), lambda s: s.expire_time),
        ("*", pg.BranchSpec(no_expiry=True), lambda s: not s.expire_time),
    ]:
        w.postgres.update_branch(name=P + "/branches/dev", branch=pg.Branch(name=P + "/branches/dev", spec=spec), update_mask=FieldMask([mask])).wait()
        assert look(w.postgres.get_branch(name=P + "/branches/dev").status), mask
    refused(BadRequest, w.postgres.create_branch, parent=P, branch_id="wrong", branch=pg.Branch(spec=pg.BranchSpec(no_expiry=False)))
    gone(w.postgres.get_branch, P + "/branches/nobody")
    same(sorted(b.branch_id for b in w.postgres.list_branches(parent=P, page_size=1)), ["dev", "production", "short"])


@covers("postgres.delete_branch", "postgres.undelete_branch")
def deleted_branches():
    name = P + "/branches/short"
    w.postgres.delete_branch(name=name).wait()
    assert name not in [b.name for b in w.postgres.list_branches(parent=P)], "a deleted branch is listed"
    shown = {b.name: b for b in w.postgres.list_branches(parent=P, show_deleted=True)}[name].status
    same(shown.current_state.value, "DELETED")
    assert shown.delete_time and shown.purge_time.ToDatetime() > shown.delete_time.ToDatetime()
    w.postgres.undelete_branch(name=name).wait()
    back = w.postgres.get_branch(name=name).status
    same((back.current_state.value, back.delete_time, back.purge_time), ("READY", None, None))
    same(sql("SELECT count(*) FROM items", "short"), [(3,)], "a branch that came back")
    w.postgres.delete_branch(name=name, purge=True).wait()
    gone(w.postgres.get_branch, name)
    gone(w.postgres.delete_branch, name)
    same(w.postgres.delete_branch(name=name, allow_missing=True).wait(), None, "allow_missing")
    refused(BadRequest, w.postgres.delete_branch, name=MAIN)


@covers("postgres.create_snapshot", "postgres.get_snapshot", "postgres.list_snapshots", "postgres.delete_snapshot")
def snapshots():
    name = P + "/snapshots/kept"
    w.postgres.create_snapshot(parent=P, snapshot_id="kept", snapshot=pg.Snapshot(spec=pg.SnapshotSpec(source_branch=MAIN, no_expiry=True))).wait()
    same((w.postgres.get_snapshot(name=name).status.source_branch, w.postgres.get_snapshot(name=name).status.no_expiry), (MAIN, True))
    same([s.name for s in w.postgres.list_snapshots(parent=P)], [name])
    w.postgres.delete_snapshot(name=name).wait()
    gone(w.postgres.get_snapshot, name)


@covers("postgres.get_snapshot_schedule", "postgres.update_snapshot_schedule")
def snapshot_schedules():
    name = MAIN + "/snapshot-schedule"
    same(w.postgres.get_snapshot_schedule(name=name).schedule or [], [], "no schedule yet")
    daily = pg.ScheduleCadence(retention=Duration(seconds=7 * 86400), daily_schedule=pg.DailySchedule(hour=3))
    w.postgres.update_snapshot_schedule(name=name, snapshot_schedule=pg.SnapshotSchedule(name=name, schedule=[daily]), update_mask=FieldMask(["schedule"]))
    got = w.postgres.get_snapshot_schedule(name=name)
    same((got.name, [(c.daily_schedule.hour, c.retention.seconds) for c in got.schedule]), (name, [(3, 7 * 86400)]))
    w.postgres.update_snapshot_schedule(name=name, snapshot_schedule=pg.SnapshotSchedule(name=name, schedule=[]), update_mask=FieldMask(["schedule"]))
    same(w.postgres.get_snapshot_schedule(name=name).schedule or [], [], "cleared schedule")


# ---- postgres: endpoints and computes ----------------------------------------------


@covers("postgres.create_endpoint", "postgres.get_endpoint", "postgres.list_endpoints", "postgres.update_endpoint", "postgres.delete_endpoint")
def endpoints():
    got = w.postgres.get_endpoint(name=PRIMARY)
    same((got.status.endpoint_type.value, got.endpoint_id, got.spec), ("ENDPOINT_TYPE_READ_WRITE", "primary", None))
    assert got.status.hosts.host and got.uid.startswith("ep-")
    write = pg.EndpointSpec(endpoint_type=pg.EndpointType.ENDPOINT_TYPE_READ_WRITE, autoscaling_limit_min_cu=0.5, autoscaling_limit_max_cu=1)
    refused(AlreadyExists, w.postgres.create_endpoint, parent=MAIN, endpoint_id="primary", endpoint=pg.Endpoint(spec=write))
    w.postgres.create_endpoint(parent=MAIN, endpoint_id="primary", replace_existing=True, endpoint=pg.Endpoint(spec=write)).wait()
    same(w.postgres.get_endpoint(name=PRIMARY).status.autoscaling_limit_max_cu, 1.0, "replaced")
    for mask, spec, look in [
        ("spec.autoscaling_limit_max_cu", pg.EndpointSpec(endpoint_type=None, autoscaling_limit_max_cu=2), lambda s: s.autoscaling_limit_max_cu == 2),
        ("spec.suspension", pg.EndpointSpec(endpoint_type=None, no_suspension=True), lambda s: not s.suspend_timeout_duration),
        ("spec.suspension", pg.EndpointSpec(endpoint_type=None, suspend_timeout_duration=Duration(seconds=600)), lambda s: s.suspend_timeout_duration.seconds == 600),
        ("spec", pg.EndpointSpec(endpoint_type=pg.EndpointType.ENDPOINT_TYPE_READ_WRITE, autoscaling_limit_min_cu=1, autoscaling_limit_max_cu=1,
                                 group=pg.EndpointGroupSpec(min=1, max=1), settings=pg.EndpointSettings(pg_settings={"work_mem": "8MB"})),
         lambda s: (s.autoscaling_limit_min_cu, s.settings.pg_settings, s.group.max) == (1, {"work_mem": "8MB"}, 1)),
        ("*", pg.EndpointSpec(endpoint_type=None, autoscaling_limit_min_cu=0.5), lambda s: s.autoscaling_limit_min_cu == 0.5),
        ("spec.disabled", pg.EndpointSpec(endpoint_type=None, disabled=True), lambda s: s.disabled),
        ("spec.disabled", pg.EndpointSpec(endpoint_type=None, disabled=False), lambda s: not s.disabled),
    ]:
        if spec.endpoint_type is None:
            del_type = spec.as_dict()
            spec.as_dict = lambda d=del_type: {k: v for k, v in d.items() if k != "endpoint_type"}
        w.postgres.update_endpoint(name=PRIMARY, endpoint=pg.Endpoint(spec=spec), update_mask=FieldMask([mask])).wait()
        assert look(w.postgres.get_endpoint(name=PRIMARY).status), (mask, w.postgres.get_endpoint(name=PRIMARY).status)
    read = pg.Endpoint(spec=pg.EndpointSpec(endpoint_type=pg.EndpointType.ENDPOINT_TYPE_READ_ONLY))
    w.postgres.create_endpoint(parent=MAIN, endpoint_id="reader", endpoint=read).wait()
    got = w.postgres.get_endpoint(name=MAIN + "/endpoints/reader")
    assert got.status.hosts.read_only_host
    same(sorted(e.endpoint_id for e in w.postgres.list_endpoints(parent=MAIN, page_size=1)), ["primary", "reader"])
    w.postgres.delete_endpoint(name=MAIN + "/endpoints/reader").wait()
    gone(w.postgres.get_endpoint, MAIN + "/endpoints/reader")
    e = refused(DatabricksError, w.postgres.delete_endpoint, name=PRIMARY)
    same(e.get_error_details().error_info.metadata["declarative_context"], "MANAGED_BY_PARENT")


@covers("postgres.list_compute_instances", "postgres.get_compute_instance")
def compute_instances():
    sql("SELECT 1")
    (one,) = w.postgres.list_compute_instances(parent=PRIMARY)
    same((one.role.value, one.current_state.value), ("READ_WRITE", "ACTIVE"))
    got = w.postgres.get_compute_instance(name=one.name)
    same((got.name, got.compute_host, got.start_time.ToDatetime()), (one.name, one.compute_host, one.start_time.ToDatetime()))
    gone(w.postgres.get_compute_instance, PRIMARY + "/compute-instances/nobody")


@covers("postgres.generate_database_credential")
def credentials():
    c = w.postgres.generate_database_credential(endpoint=PRIMARY, ttl=Duration(seconds=300))
    assert c.token and 0 < c.expire_time.seconds - time.time() <= 300
    at = Timestamp(seconds=int(time.time()) + 1800)
    assert abs(w.postgres.generate_database_credential(endpoint=PRIMARY, expire_time=at).expire_time.seconds - at.seconds) <= 1, "expire_time"
    refused(BadRequest, w.postgres.generate_database_credential, endpoint=PRIMARY, ttl=Duration(seconds=60))
    with login(PRIMARY, c.token) as conn:
        same(conn.execute("SELECT current_user").fetchone(), (me,))


# ---- postgres: roles, databases ----------------------------------------------------


@covers("postgres.create_role", "postgres.get_role", "postgres.list_roles", "postgres.update_role", "postgres.delete_role")
def roles():
    spec = pg.RoleRoleSpec(postgres_role="app", auth_method=pg.RoleAuthMethod.NO_LOGIN, attributes=pg.RoleAttributes(createdb=True),
                           membership_roles=[pg.RoleMembershipRole.DATABRICKS_SUPERUSER])
    name = w.postgres.create_role(parent=MAIN, role_id="app-role", role=pg.Role(spec=spec)).wait().name
    got = w.postgres.get_role(name=name)
    same((got.status.postgres_role, got.status.auth_method.value, got.status.attributes.createdb, [m.value for m in got.status.membership_roles]),
         ("app", "NO_LOGIN", True, ["DATABRICKS_SUPERUSER"]))
    refused(AlreadyExists, w.postgres.create_role, parent=MAIN, role_id="app-role", role=pg.Role(spec=spec))
    w.postgres.create_role(parent=MAIN, role_id="app-role", replace_existing=True, role=pg.Role(spec=pg.RoleRoleSpec(postgres_role="app", auth_method=pg.RoleAuthMethod.NO_LOGIN))).wait()
    same(w.postgres.get_role(name=name).status.membership_roles or [], [], "full replacement")
    w.postgres.update_role(name=name, role=pg.Role(spec=pg.RoleRoleSpec(attributes=pg.RoleAttributes(createrole=True))), update_mask=FieldMask(["spec.attributes"])).wait()
    same(w.postgres.get_role(name=name).status.attributes.createrole, True)
    assert name in [r.name for r in w.postgres.list_roles(parent=MAIN, page_size=1)]
    sql("CREATE SCHEMA apps; ALTER SCHEMA apps OWNER TO app")
    heir = next(r.name for r in w.postgres.list_roles(parent=MAIN) if r.status.postgres_role == me)
    w.postgres.delete_role(name=name, reassign_owned_to=heir).wait()
    gone(w.postgres.get_role, name)
    same(sql("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'apps'"), [(f'"{me}"',)])


@covers("postgres.create_database", "postgres.get_database", "postgres.list_databases", "postgres.update_database", "postgres.delete_database")
def databases():
    owner = w.postgres.get_database(name=DATABASE).status.role
    spec = pg.DatabaseDatabaseSpec(postgres_database="sales", role=owner)
    name = w.postgres.create_database(parent=MAIN, database_id="sales-db", database=pg.Database(spec=spec)).wait().name
    same((w.postgres.get_database(name=name).status.postgres_database, w.postgres.get_database(name=name).status.role), ("sales", owner))
    refused(AlreadyExists, w.postgres.create_database, parent=MAIN, database_id="sales-db", database=pg.Database(spec=spec))
    w.postgres.create_database(parent=MAIN, database_id="sales-db", replace_existing=True, database=pg.Database(spec=spec)).wait()
    spec.postgres_database = "sales2"
    w.postgres.update_database(name=name, database=pg.Database(spec=spec), update_mask=FieldMask(["spec"])).wait()
    same(w.postgres.get_database(name=name).status.postgres_database, "sales2", "renamed")
    assert name in [d.name for d in w.postgres.list_databases(parent=MAIN, page_size=1)]
    w.postgres.delete_database(name=name).wait()
    gone(w.postgres.get_database, name)


# ---- postgres: catalogs, tables, feeds, the Data API ---------------------------------


@covers("postgres.create_catalog", "postgres.get_catalog", "postgres.delete_catalog")
def catalogs():
    spec = pg.CatalogCatalogSpec(branch=MAIN, postgres_database="registered", create_database_if_missing=True)
    w.postgres.create_catalog(catalog_id="conf_registered", catalog=pg.Catalog(spec=spec)).wait()
    got = w.postgres.get_catalog(name="catalogs/conf_registered")
    same((got.catalog_id, got.status.branch, got.status.postgres_database, got.status.project), ("conf_registered", MAIN, "registered", P))
    assert got.uid and got.create_time
    refused(AlreadyExists, w.postgres.create_catalog, catalog_id="conf_registered", catalog=pg.Catalog(spec=spec))
    w.postgres.delete_catalog(name="catalogs/conf_registered").wait()
    gone(w.postgres.get_catalog, "catalogs/conf_registered")


@covers("postgres.create_table", "postgres.get_table", "postgres.delete_table")
def tables():
    made = w.postgres.create_table(pg.Table(name="lake.public.items", database=DATABASE))
    same((made.branch, made.project), (MAIN, P))
    same(w.postgres.get_table(name="lake.public.items").as_dict(), made.as_dict())
    w.postgres.delete_table(name="lake.public.items")
    gone(w.postgres.get_table, "lake.public.items")
    same(sql("SELECT count(*) FROM items"), [(3,)], "the Postgres table stays")


@covers("postgres.create_data_api", "postgres.get_data_api", "postgres.update_data_api", "postgres.delete_data_api")
def data_apis():
    name = DATABASE + "/data-api"
    gone(w.postgres.get_data_api, name)
    w.postgres.create_data_api(parent=DATABASE, data_api=pg.DataApi(spec=pg.DataApiDataApiSpec(db_max_rows=100))).wait()
    got = w.postgres.get_data_api(name=name).status
    same((got.db_schemas, got.db_max_rows, got.db_aggregates_enabled, got.jwt_role_claim_key), (["public"], 100, True, ".sub"))
    assert "public" in got.available_schemas and "apps" in got.available_schemas
    refused(AlreadyExists, w.postgres.create_data_api, parent=DATABASE, data_api=pg.DataApi())
    w.postgres.update_data_api(name=name, update_mask=FieldMask(["spec"]), data_api=pg.DataApi(spec=pg.DataApiDataApiSpec(
        db_schemas=["public", "apps"], server_cors_allowed_origins=["*"], openapi_mode=pg.OpenApiMode.OPEN_API_MODE_DISABLED))).wait()
    got = w.postgres.get_data_api(name=name).status
    same((got.db_schemas, got.server_cors_allowed_origins, got.openapi_mode.value, got.db_max_rows), (["public", "apps"], ["*"], "OPEN_API_MODE_DISABLED", 100))
    refused(BadRequest, w.postgres.update_data_api, name=name, update_mask=FieldMask(["spec"]), data_api=pg.DataApi(spec=pg.DataApiDataApiSpec(db_max_rows=-1)))
    w.postgres.delete_data_api(name=name).wait()
    gone(w.postgres.get_data_api, name)


@covers("postgres.create_cdf_config", "postgres.get_cdf_config", "postgres.list_cdf_configs", "postgres.delete_cdf_config",
        "postgres.list_cdf_statuses", "postgres.get_cdf_status")
def feeds():
    sql("ALTER TABLE items REPLICA IDENTITY FULL")
    spec = pg.CdfConfig(catalog="lake", schema="conf_feed", postgres_schema="public")
    name = w.postgres.create_cdf_config(parent=DATABASE, cdf_config=spec).wait().name
    same(name, DATABASE + "/cdf-configs/public", "the default id is the schema")
    got = w.postgres.get_cdf_config(name=name)
    same((got.catalog, got.schema, got.postgres_schema), ("lake", "conf_feed", "public"))
    same([c.name for c in w.postgres.list_cdf_configs(parent=DATABASE)], [name])
    refused(AlreadyExists, w.postgres.create_cdf_config, parent=DATABASE, cdf_config=spec)
    one = until("the feed's copy of items", lambda: next((s for s in w.postgres.list_cdf_statuses(parent=name) if s.state == pg.CdfState.CDF_STATE_STREAMING), None))
    same((one.postgres_table.split(".")[-1], w.postgres.get_cdf_status(name=one.name).uc_table), ("items", "lake.conf_feed.lb_items_history"))
    w.postgres.delete_cdf_config(name=name, force=True).wait()
    gone(w.postgres.get_cdf_config, name)


def delta_source():
    path = lake + "/conf/profiles"
    if w.tables.exists("lake.conf.profiles").table_exists:
        return "lake.conf.profiles"
    write_deltalake(path, pa.table({"id": pa.array(range(10), pa.int64()), "name": [f"n{i}" for i in range(10)]}),
                    configuration={"delta.enableChangeDataFeed": "true"})
    w.api_client.do("POST", "/api/2.1/unity-catalog/tables", body={"catalog_name": "lake", "schema_name": "conf", "name": "profiles", "table_type": "EXTERNAL",
                                                                  "data_source_format": "DELTA", "storage_location": "file://" + path})
    return "lake.conf.profiles"


@covers("postgres.create_synced_table", "postgres.get_synced_table", "postgres.delete_synced_table")
def synced_tables():
    source = delta_source()
    spec = pg.SyncedTableSyncedTableSpec(source_table_full_name=source, primary_key_columns=["id"], branch=MAIN, postgres_database="databricks_postgres",
                                         scheduling_policy=pg.SyncedTableSyncedTableSpecSyncedTableSchedulingPolicy.SNAPSHOT,
                                         new_pipeline_spec=pg.NewPipelineSpec(storage_catalog="lake", storage_schema="staging", budget_policy_id="b"))
    name = w.postgres.create_synced_table(synced_table_id="lake.conf_synced.profiles", synced_table=pg.SyncedTable(spec=spec)).wait().name
    same(name, "synced_tables/lake.conf_synced.profiles")
    refused(AlreadyExists, w.postgres.create_synced_table, synced_table_id="lake.conf_synced.profiles", synced_table=pg.SyncedTable(spec=spec))
    got = until("the first load", lambda: (lambda t: t if "ONLINE" in (t.status.detailed_state.value if t.status.detailed_state else "") else None)(w.postgres.get_synced_table(name=name)))
    same((got.status.project, got.status.unity_catalog_provisioning_state.value), (P, "ACTIVE"))
    assert got.status.pipeline_id and got.status.last_sync.sync_end_time and got.create_time
    same(sql("SELECT count(*) FROM conf_synced.profiles"), [(10,)])
    w.postgres.delete_synced_table(name=name).wait()
    gone(w.postgres.get_synced_table, name)


# ---- database: instances -------------------------------------------------------------


def available(name):
    return w.database.wait_get_database_instance_database_available(name)


@covers("database.create_database_instance", "database.get_database_instance", "database.list_database_instances",
        "database.find_database_instance_by_uid", "database.update_database_instance")
def instances():
    made = w.database.create_database_instance(db.DatabaseInstance(
        name="inst", capacity="CU_2", retention_window_in_days=14, enable_pg_native_login=True, usage_policy_id="u1",
        node_count=2, enable_readable_secondaries=True, custom_tags=[db.CustomTag(key="k", value="v")])).result()
    same(made.state, db.DatabaseInstanceState.AVAILABLE)
    got = w.database.get_database_instance(name="inst")
    same((got.capacity, got.effective_capacity, got.retention_window_in_days, got.effective_retention_window_in_days), ("CU_2", "CU_2", 14, 14))
    same((got.node_count, got.effective_node_count, got.enable_readable_secondaries, got.effective_enable_readable_secondaries), (2, 2, True, True))
    same((got.usage_policy_id, got.effective_usage_policy_id, got.enable_pg_native_login, got.creator), ("u1", "u1", True, me))
    assert got.uid and got.read_write_dns and got.read_only_dns and got.pg_version and got.creation_time
    same(w.database.find_database_instance_by_uid(uid=got.uid).name, "inst")
    assert "inst" in [i.name for i in w.database.list_database_instances(page_size=1)]
    refused(ResourceAlreadyExists, lambda: w.database.create_database_instance(db.DatabaseInstance(name="inst")))
    for bad in (dict(capacity="CU_3"), dict(retention_window_in_days=1), dict(retention_window_in_days=36), dict(node_count=4), dict(node_count=1, enable_readable_secondaries=True)):
        refused(BadRequest, lambda: w.database.create_database_instance(db.DatabaseInstance(name="inst-bad", **bad)))
    gone(w.database.get_database_instance, "nobody")
    mask = "capacity,custom_tags,enable_pg_native_login,enable_readable_secondaries,node_count,retention_window_in_days,stopped,usage_policy_id"
    for capacity in ("CU_1", "CU_4", "CU_8"):
        w.database.update_database_instance(name="inst", update_mask="capacity", database_instance=db.DatabaseInstance(name="inst", capacity=capacity))
        same(w.database.get_database_instance(name="inst").effective_capacity, capacity)
    w.database.update_database_instance(name="inst", update_mask="stopped", database_instance=db.DatabaseInstance(name="inst", stopped=True))
    until("a stopped instance", lambda: w.database.get_database_instance(name="inst").state == db.DatabaseInstanceState.STOPPED)
    same(w.database.get_database_instance(name="inst").effective_stopped, True)
    out = w.database.update_database_instance(name="inst", update_mask=mask, database_instance=db.DatabaseInstance(
        name="inst", capacity="CU_1", custom_tags=[], enable_pg_native_login=False, enable_readable_secondaries=False, node_count=1,
        retention_window_in_days=7, stopped=False, usage_policy_id="u2"))
    same((out.capacity, out.node_count, out.enable_readable_secondaries, out.stopped, out.usage_policy_id), ("CU_1", 1, False, False, "u2"), "echo")
    got = available("inst")
    same((got.read_only_dns, got.effective_custom_tags or [], got.effective_enable_pg_native_login), (None, [], False))
    w.database.update_database_instance(name="inst", update_mask="*", database_instance=db.DatabaseInstance(name="inst", retention_window_in_days=35))
    same(w.database.get_database_instance(name="inst").effective_retention_window_in_days, 35)


@covers("database.create_database_instance", "database.delete_database_instance")
def child_instances():
    sql("CREATE TABLE before (id int)", project="inst")
    parent = w.database.get_database_instance(name="inst")
    w.database.create_database_instance(db.DatabaseInstance(name="inst-child", capacity="CU_1", parent_instance_ref=db.DatabaseInstanceRef(name="inst"))).result()
    child = w.database.get_database_instance(name="inst-child")
    same((child.parent_instance_ref.name, child.parent_instance_ref.uid, child.state.value), ("inst", parent.uid, "AVAILABLE"))
    assert child.uid != parent.uid and child.read_write_dns != parent.read_write_dns
    same([r.name for r in w.database.get_database_instance(name="inst").child_instance_refs], ["inst-child"])
    same(w.database.find_database_instance_by_uid(uid=child.uid).name, "inst-child")
    assert "inst-child" in [i.name for i in w.database.list_database_instances()]
    same(sql("SELECT count(*) FROM before", "inst-child", "inst"), [(0,)])
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    w.database.create_database_instance(db.DatabaseInstance(name="inst-then", parent_instance_ref=db.DatabaseInstanceRef(name="inst-child", branch_time=now))).result()
    same(w.database.get_database_instance(name="inst-then").parent_instance_ref.name, "inst-child")
    w.database.update_database_instance(name="inst-child", update_mask="stopped,capacity", database_instance=db.DatabaseInstance(name="inst-child", stopped=True, capacity="CU_2"))
    until("a stopped child", lambda: w.database.get_database_instance(name="inst-child").state == db.DatabaseInstanceState.STOPPED)
    same((w.database.get_database_instance(name="inst").state.value, w.database.get_database_instance(name="inst-child").capacity), ("AVAILABLE", "CU_2"))
    refused(BadRequest, w.database.delete_database_instance, name="inst", purge=False)
    refused(BadRequest, w.database.delete_database_instance, name="inst")  # it has descendants
    refused(BadRequest, w.database.delete_database_instance, name="inst-child")
    w.database.delete_database_instance(name="inst-then")
    until("inst-then to go", lambda: "inst-then" not in [i.name for i in w.database.list_database_instances()])
    w.database.delete_database_instance(name="inst-child", force=True, purge=True)
    until("inst-child to go", lambda: "inst-child" not in [i.name for i in w.database.list_database_instances()])
    gone(w.database.get_database_instance, "inst-child")


@covers("database.failover_database_instance", "database.upgrade_instance_to_autoscaling")
def failover():
    refused(BadRequest, w.database.failover_database_instance, name="inst")  # it has one node
    w.database.update_database_instance(name="inst", update_mask="node_count", database_instance=db.DatabaseInstance(name="inst", node_count=2))
    sql("SELECT 1", project="inst")
    primary = "projects/inst/branches/production/endpoints/primary"
    before = next(w.postgres.list_compute_instances(parent=primary)).start_time.ToDatetime()
    w.database.failover_database_instance(name="inst")
    available("inst")
    after = until("the new primary", lambda: next((c for c in w.postgres.list_compute_instances(parent=primary) if c.start_time), None)).start_time.ToDatetime()
    assert after > before, "the primary is the same"
    w.database.upgrade_instance_to_autoscaling(name="inst")
    same(w.postgres.get_project(name="projects/inst").project_id, "inst")
    gone(w.database.upgrade_instance_to_autoscaling, "nobody")


@covers("database.generate_database_credential")
def instance_credentials():
    request = str(uuid.uuid4())
    c = w.database.generate_database_credential(request_id=request, instance_names=["inst"])
    assert c.token and c.expiration_time
    same(w.database.generate_database_credential(request_id=request, instance_names=["inst"]).token, c.token, "the same request")
    assert w.database.generate_database_credential(request_id=str(uuid.uuid4()), instance_names=["inst"]).token != c.token
    gone(lambda: w.database.generate_database_credential(instance_names=["nobody"]))


@covers("database.create_database_instance_role", "database.get_database_instance_role", "database.list_database_instance_roles",
        "database.update_database_instance_role", "database.delete_database_instance_role")
def instance_roles():
    role = db.DatabaseInstanceRole(name="reporting", identity_type=db.DatabaseInstanceRoleIdentityType.PG_ONLY,
                                   membership_role=db.DatabaseInstanceRoleMembershipRole.DATABRICKS_SUPERUSER, attributes=db.DatabaseInstanceRoleAttributes(createdb=True))
    w.database.create_database_instance_role(instance_name="inst", database_instance_role=role)
    got = w.database.get_database_instance_role(instance_name="inst", name="reporting")
    same((got.identity_type.value, got.membership_role.value, got.effective_attributes.createdb, got.instance_name), ("PG_ONLY", "DATABRICKS_SUPERUSER", True, "inst"))
    refused(ResourceAlreadyExists, w.database.create_database_instance_role, instance_name="inst", database_instance_role=role)
    w.database.update_database_instance_role(instance_name="inst", name="reporting", database_instance_role=db.DatabaseInstanceRole(
        name="reporting", attributes=db.DatabaseInstanceRoleAttributes(createrole=True)))
    same(w.database.get_database_instance_role(instance_name="inst", name="reporting").effective_attributes.createrole, True)
    assert "reporting" in [r.name for r in w.database.list_database_instance_roles(instance_name="inst", page_size=1)]
    w.database.delete_database_instance_role(instance_name="inst", name="reporting", reassign_owned_to=me)
    gone(w.database.get_database_instance_role, "inst", "reporting")
    w.database.delete_database_instance_role(instance_name="inst", name="reporting", allow_missing=True)
    gone(w.database.delete_database_instance_role, "inst", "reporting")


@covers("database.create_database_catalog", "database.get_database_catalog", "database.list_database_catalogs",
        "database.update_database_catalog", "database.delete_database_catalog")
def instance_catalogs():
    c = db.DatabaseCatalog(name="inst_catalog", database_instance_name="inst", database_name="cat", create_database_if_not_exists=True)
    made = w.database.create_database_catalog(c)
    same((made.name, made.database_name, made.database_instance_name), ("inst_catalog", "cat", "inst"))
    same(w.database.get_database_catalog(name="inst_catalog").uid, made.uid)
    same([x.name for x in w.database.list_database_catalogs(instance_name="inst", page_size=1)], ["inst_catalog"])
    same(w.database.update_database_catalog(name="inst_catalog", database_catalog=c, update_mask="create_database_if_not_exists,database_instance_name,database_name").uid, made.uid)
    w.database.delete_database_catalog(name="inst_catalog")
    gone(w.database.get_database_catalog, "inst_catalog")


@covers("database.create_database_table", "database.get_database_table", "database.delete_database_table")
def instance_tables():
    t = db.DatabaseTable(name="lake.public.before", database_instance_name="inst", logical_database_name="databricks_postgres")
    w.database.create_database_table(t)
    same(w.database.get_database_table(name=t.name).as_dict(), t.as_dict())
    refused(ResourceAlreadyExists, w.database.create_database_table, t)
    gone(w.database.create_database_table, db.DatabaseTable(name="lake.public.nothing", database_instance_name="inst", logical_database_name="databricks_postgres"))
    w.database.delete_database_table(name=t.name)
    gone(w.database.get_database_table, t.name)


@covers("database.create_synced_database_table", "database.get_synced_database_table", "database.list_synced_database_tables",
        "database.update_synced_database_table", "database.delete_synced_database_table")
def instance_synced_tables():
    t = db.SyncedDatabaseTable(name="lake.inst_synced.profiles", database_instance_name="inst", logical_database_name="databricks_postgres", spec=db.SyncedTableSpec(
        source_table_full_name=delta_source(), primary_key_columns=["id"], scheduling_policy=db.SyncedTableSchedulingPolicy.TRIGGERED,
        create_database_objects_if_missing=True, new_pipeline_spec=db.NewPipelineSpec(storage_catalog="lake", storage_schema="staging", budget_policy_id="b-1")))
    w.database.create_synced_database_table(t)
    got = until("the first load", lambda: (lambda x: x if "ONLINE" in (x.data_synchronization_status.detailed_state.value if x.data_synchronization_status.detailed_state else "") else None)(
        w.database.get_synced_database_table(name=t.name)))
    same((got.effective_database_instance_name, got.effective_logical_database_name), ("inst", "databricks_postgres"))
    same(got.spec.as_dict(), t.spec.as_dict(), "the spec is given back")
    assert got.data_synchronization_status.pipeline_id and got.data_synchronization_status.last_sync.sync_end_timestamp
    same([x.name for x in w.database.list_synced_database_tables(instance_name="inst", page_size=1)], [t.name])
    same(w.database.update_synced_database_table(name=t.name, synced_table=t, update_mask="database_instance_name,logical_database_name,spec").name, t.name)
    w.database.delete_synced_database_table(name=t.name, purge_data=True)
    gone(w.database.get_synced_database_table, t.name)
    same(sql("SELECT to_regclass('inst_synced.profiles')", project="inst"), [(None,)], "purge_data drops the table")
    t.name, t.spec.create_database_objects_if_missing = "lake.inst_missing.profiles", False
    w.database.create_synced_database_table(t)
    until("a refusal to make the schema", lambda: "create_database_objects_if_missing" in (
        w.database.get_synced_database_table(name=t.name).data_synchronization_status.message or ""))
    w.database.delete_synced_database_table(name=t.name)


# ---- what is listed ---------------------------------------------------------------------


def listed():
    with open(compatibility) as f:
        return dict(re.findall(r"^\| `((?:database|postgres)\.\w+)` \| (.+) \|$", f.read(), re.M))


def dummy(name, parameter):
    if parameter.annotation in ("str", str):
        return {"parent": MAIN, "name": P + "/preview/replication-groups/x"}.get(name, "x")
    if "FieldMask" in str(parameter.annotation):
        return FieldMask(["*"])
    return type("Nothing", (), {"as_dict": lambda self: {}})()


def refuse_listed(reasons):
    for m in sorted(reasons):
        service, name = m.split(".")
        f = getattr(services[service][1], name)
        args = {n: dummy(n, p) for n, p in inspect.signature(f).parameters.items() if p.default is inspect.Parameter.empty}
        e = refused((NotThere, NotFound, BadRequest), f, **args)
        assert e.error_code in ("NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND"), f"{m} is answered with {e.error_code}: {e}"


def why(e):
    """Where in this file it happened, and what."""
    lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == __file__]
    return f"line {lines[-1]}: {type(e).__name__}: {e}"


def main():
    wrong, started = [], time.monotonic()
    known, reasons, covered = set(methods()), listed(), set()
    for f, names in checks:
        at = time.monotonic()
        before = set(succeeded)
        succeeded.clear()
        try:
            f()
            for n in set(names) - succeeded - before:
                wrong.append(f"check {f.__name__} says it covers {n} and did not call it with success")
            covered |= set(names)
        except Exception as e:
            wrong.append(f"check {f.__name__}, {why(e)}")
            covered |= set(names)
        succeeded.update(before)
        print(f"{f.__name__:24} {time.monotonic() - at:6.2f} s", file=sys.stderr)
    try:
        refuse_listed(reasons)
    except Exception as e:
        wrong.append(f"listed methods, {why(e)}")
    wrong += [f"{m} is neither covered by a check nor listed in {compatibility}" for m in sorted(known - covered - set(reasons))]
    wrong += [f"{m} is covered by a check and listed as not there" for m in sorted(covered & set(reasons))]
    wrong += [f"{m} is no method of this SDK" for m in sorted((covered | set(reasons)) - known)]
    print(f"{len(known)} methods, {len(covered)} checked, {len(reasons)} listed, {len(wrong)} wrong, {time.monotonic() - started:.1f} s", file=sys.stderr)
    for x in wrong:
        print(x)
    sys.exit(1 if wrong else 0)


main()
