// Package tarn holds the words of Tarn, an open Lakebase: serverless Postgres
// on copy-on-write branches, native to a Delta lakehouse.
//
// It knows names, positions, states and kinds of error, and how to parse,
// validate and print them. It does no I/O and imports only the standard
// library; every room under internal/ may import it. A type lives here only
// when more than one floor must say its name (see ARCHITECTURE.md).
package tarn
