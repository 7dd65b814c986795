package controldb_test

import "testing"

// fillIdentity puts a row into every table of principals and sign-ins.
func fillIdentity(t *testing.T, conn string) {
	t.Helper()
	for _, sql := range [...]string{
		`INSERT INTO principals (name, type, admin, password, entitlements) VALUES ('eve@example.com', 'USER', false, '$argon2id$x', '{"workspace-access"}')`,
		`INSERT INTO members SELECT 1, id FROM principals WHERE name = 'eve@example.com'`,
		`INSERT INTO client_secrets SELECT 's', id, decode(repeat('11', 32), 'hex') FROM principals WHERE name = 'eve@example.com'`,
		`INSERT INTO federation_policies VALUES ('p', NULL, '', 'https://issuer.example.com', '{a,"b c"}', '', 'sub', '', '')`,
		`INSERT INTO authorizations SELECT decode(repeat('22', 32), 'hex'), decode(repeat('33', 32), 'hex'), 'cli', 'http://localhost:8020', '{all-apis}', 's', 'c', decode(repeat('44', 32), 'hex'), id, 'f', now()
			FROM principals WHERE name = 'eve@example.com'`,
		`INSERT INTO devices VALUES (decode(repeat('55', 32), 'hex'), 'BCDF-GHJK', 'cli', '{all-apis}', 'PENDING', NULL, NULL, now())`,
		`INSERT INTO refresh_tokens SELECT decode(repeat('66', 32), 'hex'), 'f', id, 'cli', '{all-apis}', now(), NULL, now() FROM principals WHERE name = 'eve@example.com'`,
		`INSERT INTO revoked VALUES ('jti', now())`,
		`INSERT INTO permissions SELECT 'kept', id, 'CAN_USE' FROM principals WHERE name = 'eve@example.com'`,
	} {
		exec(t, conn, sql)
	}
}
