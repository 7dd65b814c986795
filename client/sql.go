package client

import (
	"context"
	"net/http"
	"strconv"

	"github.com/tarndb/tarn/internal/api/wire"
)

// The wire's words for statements.
type (
	ExecuteStatement = wire.ExecuteStatement
	SQLStatement     = wire.Statement
	SQLResult        = wire.StatementResult
	SQLParameter     = wire.SQLParameter
	SQLColumn        = wire.StatementColumn
)

const statementsPath = "/api/2.0/sql/statements"

// SQL speaks of statements.
type SQL struct{ c *Client }

// NewSQL runs statements in the server's warehouse.
func NewSQL(c *Client) *SQL { return &SQL{c} }

// Execute begins a statement and waits for it as long as it says.
func (s *SQL) Execute(ctx context.Context, in ExecuteStatement) (SQLStatement, error) {
	var out SQLStatement
	err := s.c.do(ctx, http.MethodPost, statementsPath, nil, in, &out)
	return out, err
}

// Get tells how far a statement is.
func (s *SQL) Get(ctx context.Context, id string) (SQLStatement, error) {
	var out SQLStatement
	err := s.c.get(ctx, statementsPath+"/"+id, nil, &out)
	return out, err
}

// Cancel ends a statement.
func (s *SQL) Cancel(ctx context.Context, id string) error {
	return s.c.do(ctx, http.MethodPost, statementsPath+"/"+id+"/cancel", nil, nil, nil)
}

// Chunk gives a part of a result.
func (s *SQL) Chunk(ctx context.Context, id string, n int) (SQLResult, error) {
	var out SQLResult
	err := s.c.get(ctx, statementsPath+"/"+id+"/result/chunks/"+strconv.Itoa(n), nil, &out)
	return out, err
}
