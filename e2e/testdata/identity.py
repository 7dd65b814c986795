# What the published SDK does with identities: principals by SCIM, permissions,
# roles, a service principal's own login, a person's login by the browser flow,
# and a pool whose tokens end while it is used. The host and an admin's token
# come from the environment; arguments: the gateway's port, the person's name and
# password.
import html.parser
import sys
import time
import urllib.parse

import psycopg
import psycopg_pool
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied, ResourceConflict
from databricks.sdk.oauth import OAuthClient
from databricks.sdk.service import database, iam, postgres

port, person, password = sys.argv[1:]
admin = WorkspaceClient()
host = admin.config.host

# ---- SCIM ------------------------------------------------------------------
bob = admin.users.create(user_name="bob@example.com", display_name="Bob")
assert [u.id for u in admin.users.list(filter='userName eq "bob@example.com"')] == [bob.id]
admin.users.patch(bob.id, operations=[iam.Patch(op=iam.PatchOp.REPLACE, path="displayName", value="Robert")],
                  schemas=[iam.PatchSchema.URN_IETF_PARAMS_SCIM_API_MESSAGES_2_0_PATCH_OP])
assert admin.users.get(bob.id).display_name == "Robert"
try:
    admin.users.create(user_name="bob@example.com")
    raise AssertionError("made twice")
except ResourceConflict:
    pass
job = admin.service_principals.create(display_name="nightly")
secret = admin.service_principal_secrets_proxy.create(service_principal_id=job.id, lifetime="3600s")
team = admin.groups.create(display_name="analysts", members=[iam.ComplexValue(value=bob.id)])
admin.groups.patch(team.id, operations=[iam.Patch(op=iam.PatchOp.ADD, value={"members": [{"value": job.id}]})],
                   schemas=[iam.PatchSchema.URN_IETF_PARAMS_SCIM_API_MESSAGES_2_0_PATCH_OP])
assert {m.value for m in admin.groups.get(team.id).members} == {bob.id, job.id}
assert "admins" in {g.display for g in admin.current_user.me().groups}
print("scim ok")

# ---- a service principal's own login, unmodified ---------------------------
robot = WorkspaceClient(host=host, client_id=job.application_id, client_secret=secret.secret, auth_type="oauth-m2m")
assert robot.current_user.me().user_name in (None, job.application_id)
try:
    robot.database.get_database_instance("shop")
    raise AssertionError("saw what it may not see")
except PermissionDenied as e:
    assert "CAN_CREATE" in str(e), e
admin.permissions.update("database-instances", "shop", access_control_list=[
    iam.AccessControlRequest(group_name="analysts", permission_level=iam.PermissionLevel.CAN_USE)])
acl = admin.permissions.get("database-projects", "shop").access_control_list
assert "CAN_USE" in {p.permission_level.value for a in acl if a.group_name == "analysts" for p in a.all_permissions}
instance = robot.database.get_database_instance("shop")
try:
    robot.database.update_database_instance("shop", database.DatabaseInstance(name="shop", stopped=True), "stopped")
    raise AssertionError("stopped what it may only use")
except PermissionDenied:
    pass
print("m2m and permissions ok")

# ---- roles -----------------------------------------------------------------
branch = "projects/shop/branches/production"
role = admin.postgres.create_role(parent=branch, role=postgres.Role(spec=postgres.RoleRoleSpec(
    postgres_role=job.application_id, identity_type=postgres.RoleIdentityType.SERVICE_PRINCIPAL,
    membership_roles=[postgres.RoleMembershipRole.DATABRICKS_SUPERUSER])), role_id="nightly").wait()
assert role.name == branch + "/roles/nightly" and role.status.auth_method.value == "LAKEBASE_OAUTH_V1", role
group = admin.database.create_database_instance_role("shop", database.DatabaseInstanceRole(
    name="analysts", identity_type=database.DatabaseInstanceRoleIdentityType.GROUP))
assert group.name == "analysts" and group.identity_type.value == "GROUP"
admin.postgres.create_role(parent=branch, role=postgres.Role(spec=postgres.RoleRoleSpec(postgres_role="old_app"))).wait()
assert {"nightly", "old-app"} <= {r.role_id for r in admin.postgres.list_roles(branch)}
changed = admin.postgres.update_role(branch + "/roles/old-app", postgres.Role(spec=postgres.RoleRoleSpec(
    attributes=postgres.RoleAttributes(createdb=True))), postgres.FieldMask(["spec.attributes"])).wait()
assert changed.status.attributes.createdb
admin.postgres.delete_role(branch + "/roles/old-app").wait()
try:
    admin.postgres.get_role(branch + "/roles/old-app")
    raise AssertionError("still there")
except NotFound:
    pass
try:
    robot.postgres.create_role(parent=branch, role=postgres.Role(spec=postgres.RoleRoleSpec(
        postgres_role="chief", attributes=postgres.RoleAttributes(createrole=True)))).wait()
    raise AssertionError("gave itself rights")
except PermissionDenied:
    pass
print("roles ok")


def connect(user, token, **more):
    return psycopg.connect(host=instance.read_write_dns, port=port, dbname="databricks_postgres", user=user, password=token,
                           sslmode="require", **more)


# ---- credential and access token as passwords -------------------------------
credential = robot.database.generate_database_credential(instance_names=["shop"], request_id="r")
with connect(job.application_id, credential.token) as c:
    c.execute("CREATE TABLE seen (id int)")
access = robot.config.oauth_token().access_token
with connect(job.application_id, access) as c:
    assert c.execute("SELECT current_user").fetchone()[0] == job.application_id
with connect("analysts", access) as c:
    assert c.execute("SELECT session_user").fetchone()[0] == "analysts"
print("passwords ok")


# ---- a person signs in by browser -------------------------------------------
class Form(html.parser.HTMLParser):
    fields = None

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == "input" and a.get("type") == "hidden":
            self.fields = {**(self.fields or {}), a["name"]: a["value"]}


flow = OAuthClient.from_host(host=host, client_id="databricks-cli", redirect_url="http://localhost:8020", scopes=["all-apis", "offline_access"])
consent = flow.initiate_consent()
browser = requests.Session()
page = browser.get(consent.authorization_url)
form = Form()
form.feed(page.text)
answer = browser.post(page.url, data={**form.fields, "name": person, "password": password, "answer": "allow"}, allow_redirects=False)
back = urllib.parse.urlparse(answer.headers["Location"])
assert answer.status_code == 303 and back.netloc == "localhost:8020", answer.text
session = consent.exchange_callback_parameters(dict(urllib.parse.parse_qsl(back.query)))
user = WorkspaceClient(host=host, token=session.token().access_token)
assert user.current_user.me().user_name == person
refreshed = session.refresh()
assert refreshed.refresh_token and WorkspaceClient(host=host, token=refreshed.access_token).current_user.me().user_name == person
print("u2m ok")

# ---- a pool that outlives its tokens -----------------------------------------
tokens = set()


class Fresh(psycopg.Connection):
    @classmethod
    def connect(cls, conninfo="", **kwargs):
        token = robot.config.oauth_token().access_token
        tokens.add(token)
        return super().connect(conninfo, password=token, **kwargs)


first = robot.config.oauth_token().access_token
pool = psycopg_pool.ConnectionPool(
    f"host={instance.read_write_dns} port={port} dbname=databricks_postgres user={job.application_id} sslmode=require",
    connection_class=Fresh, min_size=1, max_size=2, max_lifetime=3, open=True)
deadline = time.monotonic() + 180
while True:
    with pool.connection() as c:
        c.execute("INSERT INTO seen VALUES (1)")
    try:
        connect(job.application_id, first).close()
    except psycopg.OperationalError as e:
        assert "expired" in str(e), e
        break
    assert time.monotonic() < deadline, "the first token never ended"
    time.sleep(0.5)
with pool.connection() as c:
    assert c.execute("SELECT count(*) FROM seen").fetchone()[0] > 1
pool.close()
assert len(tokens) > 1, tokens
print("pool ok")
