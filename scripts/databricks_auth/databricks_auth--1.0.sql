\echo Use "CREATE EXTENSION databricks_auth" to load this file. \quit

-- The workspace's principals, as its control plane last told this compute: the
-- comment of role tarn_admin holds a hash of each, one a line. Comments of a
-- superuser are written by superusers only. NULL = it was told nothing yet, and
-- then whoever there is not is found out at login.
CREATE FUNCTION databricks_auth_knows(identity_name text, identity_type text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT position(E'\n' || left(encode(sha256(convert_to(identity_type || ':' || identity_name, 'UTF8')), 'hex'), 32) || E'\n' IN d) > 0
	FROM (SELECT shobj_description(oid, 'pg_authid') AS d FROM pg_roles WHERE rolname = 'tarn_admin') x
	WHERE d LIKE 'tarn directory 1%'
$$;
REVOKE EXECUTE ON FUNCTION databricks_auth_knows(text, text) FROM PUBLIC;

-- Makes the role of an identity: it logs in with the identity's token, a group's
-- with a token of any of its members. The caller may grant it on.
--
--   42710  the role exists            22023  no such type, or the identity has another
--   42501  the caller lacks CREATEROLE, or is no OAuth role itself
--   TN001  the workspace has no such identity
--   42622  the name is longer than Postgres takes      42939  the name is reserved
--   42883  (Postgres's own) the extension is not there
CREATE FUNCTION databricks_create_role(identity_name text, identity_type text) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kind text := upper(identity_type);
	other text;
	me text := CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;
	caller pg_roles;
BEGIN
	SELECT * INTO STRICT caller FROM pg_roles WHERE rolname = me;
	IF NOT (caller.rolcreaterole OR caller.rolsuper) THEN
		RAISE insufficient_privilege USING MESSAGE = 'permission denied to create role',
			DETAIL = format('Role %I lacks CREATEROLE.', me), HINT = 'Ask the owner of the database to create the role.';
	END IF;
	IF NOT caller.rolsuper AND NOT EXISTS (
		SELECT FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.roleid JOIN pg_roles s ON s.oid = m.member
		WHERE o.rolname = 'tarn_oauth' AND s.rolname = session_user) THEN
		RAISE insufficient_privilege USING MESSAGE = 'permission denied to create a role for an identity',
			DETAIL = format('Role %I logged in with a password.', session_user), HINT = 'Log in with an OAuth token.';
	END IF;
	IF identity_name IS NULL OR identity_name = '' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'the name of the identity is empty';
	END IF;
	IF kind IS NULL OR kind NOT IN ('USER', 'SERVICE_PRINCIPAL', 'GROUP') THEN
		RAISE invalid_parameter_value USING MESSAGE = format('invalid identity type "%s"', identity_type),
			HINT = 'The types are USER, SERVICE_PRINCIPAL and GROUP.';
	END IF;
	IF octet_length(identity_name) > 63 THEN
		RAISE name_too_long USING MESSAGE = format('identity "%s" is longer than a role name can be', identity_name), DETAIL = 'Postgres takes 63 bytes.';
	END IF;
	IF identity_name LIKE 'pg\_%' OR identity_name IN ('public', 'none', 'tarn_admin', 'tarn_oauth', 'databricks_superuser') THEN
		RAISE reserved_name USING MESSAGE = format('role name "%s" is reserved', identity_name);
	END IF;
	IF EXISTS (SELECT FROM pg_roles WHERE rolname = identity_name) THEN
		RAISE duplicate_object USING MESSAGE = format('role "%s" already exists', identity_name);
	END IF;
	IF NOT databricks_auth_knows(identity_name, kind) THEN
		SELECT t INTO other FROM unnest(ARRAY['USER', 'SERVICE_PRINCIPAL', 'GROUP']) t WHERE databricks_auth_knows(identity_name, t);
		IF FOUND THEN
			RAISE invalid_parameter_value USING MESSAGE = format('identity "%s" is a %s, not a %s', identity_name, other, kind);
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'TN001', MESSAGE = format('identity "%s" does not exist in the workspace', identity_name),
			HINT = 'List them with: tarn principal list';
	END IF;
	EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', identity_name);
	-- From Postgres 16 on membership can be had without its rights.
	IF current_setting('server_version_num')::int >= 160000 THEN
		EXECUTE format('GRANT tarn_oauth TO %I WITH ADMIN FALSE, INHERIT FALSE, SET FALSE', identity_name);
		EXECUTE format('GRANT %I TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', identity_name, me);
	ELSE
		EXECUTE format('GRANT tarn_oauth TO %I', identity_name);
		EXECUTE format('GRANT %I TO %I WITH ADMIN OPTION', identity_name, me);
	END IF;
	RETURN identity_name;
END
$$;

-- The roles that log in with a token.
CREATE FUNCTION databricks_list_roles(OUT role_name name, OUT can_login boolean) RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT r.rolname, r.rolcanlogin FROM pg_roles r
	WHERE EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.roleid WHERE m.member = r.oid AND o.rolname = 'tarn_oauth')
	ORDER BY 1
$$;
