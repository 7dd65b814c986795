// Package node lets control work with one computer's volumes and computes
// through a small RPC over a unix socket: client and server. It knows how a
// call, an answer and a kind of error travel between two processes. It knows
// nothing of what is done with them and decides nothing.
//
// A call is POST /v1/<method> with a JSON argument; the answer is 200 with a
// JSON result, or 500 with a fault. Every call is idempotent, so the client
// repeats one whose answer it did not get: the node may restart at any time.
package node
