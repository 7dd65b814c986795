package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/delta"
)

func TestKindsBecomePublishedErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{tarn.Invalid("x"), 400, "INVALID_PARAMETER_VALUE"},
		{tarn.NotFound("x"), 404, "RESOURCE_DOES_NOT_EXIST"},
		{tarn.Conflict("x"), 400, "INVALID_STATE"},
		{tarn.Denied("x"), 403, "PERMISSION_DENIED"},
		{tarn.Unavailable("x"), 503, "TEMPORARILY_UNAVAILABLE"},
		{errors.New("x"), 500, "INTERNAL_ERROR"},
		{fmt.Errorf("while reading: %w", tarn.NotFound("x")), 404, "RESOURCE_DOES_NOT_EXIST"},
		{fmt.Errorf("open: %w", &delta.UnsupportedError{Feature: "variantType"}), 501, "NOT_IMPLEMENTED"},
		{fmt.Errorf("open: %w", &delta.DamagedError{Path: "x", Reason: "y"}), 501, "NOT_IMPLEMENTED"},
		{fmt.Errorf("open: %w", delta.ErrNoVersion), 404, "RESOURCE_DOES_NOT_EXIST"},
		{existing(tarn.Conflict("taken"), alreadyExists, func() error { return nil }), 409, "ALREADY_EXISTS"},
		{existing(tarn.Conflict("busy"), alreadyExists, func() error { return tarn.NotFound("no") }), 400, "INVALID_STATE"},
		{existing(tarn.Denied("no"), alreadyExists, func() error { return nil }), 403, "PERMISSION_DENIED"},
	} {
		f := failureOf(c.err)
		if f.status != c.status || f.code != c.code {
			t.Errorf("%v: got %d %s, want %d %s", c.err, f.status, f.code, c.status, c.code)
		}
	}
	if existing(nil, alreadyExists, nil) != nil {
		t.Error("success became a failure")
	}
}

func TestInternalErrorsDoNotLeak(t *testing.T) {
	e := failureOf(errors.New("dial /srv/secret.sock: refused")).body("id-1")
	if strings.Contains(e.Message, "secret") {
		t.Errorf("message %q", e.Message)
	}
}

func TestFinalErrorsHoldNoRetriedWords(t *testing.T) {
	msg := "wake: Timed out after 3s: context deadline exceeded, worker env 7 not found, ClusterNotReadyException"
	e := failureOf(tarn.Invalid("%s", msg)).body("")
	for _, w := range []string{"Timed out after ", "deadline exceeded", "worker env ", "ClusterNotReadyException"} {
		if strings.Contains(e.Message, w) {
			t.Errorf("message %q makes SDKs retry (%q)", e.Message, w)
		}
	}
}

func TestDetailsCarryRequestHintAndField(t *testing.T) {
	f := failureOf(tarn.Conflict("branch is protected").WithHint("unprotect it"))
	f.fields = badField("spec.x", "is wrong").fields
	types := map[string]wire.Detail{}
	for _, d := range f.body("id-1").Details {
		types[d.Type] = d
	}
	if types[wire.RequestInfoType].RequestID != "id-1" {
		t.Error("no request id")
	}
	if l := types[wire.HelpType].Links; len(l) != 1 || l[0].Description != "unprotect it" {
		t.Errorf("help %v", l)
	}
	if v := types[wire.BadRequestType].FieldViolations; len(v) != 1 || v[0].Field != "spec.x" {
		t.Errorf("violations %v", v)
	}
	if types[wire.ErrorInfoType].Reason != "INVALID_STATE" {
		t.Error("no reason")
	}
}
