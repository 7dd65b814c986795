// Package e2e holds tests that start the real binary with a real Postgres and
// real clients, as a user would. It has no code of its own.
package e2e
