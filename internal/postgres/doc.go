// Package postgres runs an unmodified Postgres 15 to 18 on a data directory:
// it finds installed versions, makes a data directory, starts a server on a
// unix socket, says when it answers, stops it, takes over one that an earlier
// process of ours left running, kills it with every child, and reads
// pg_control. It knows processes, sockets and Postgres's own files. It knows
// nothing of branches, volumes, roles or SQL beyond the question "do you
// answer?", and it never decides to start or stop anything by itself.
package postgres
