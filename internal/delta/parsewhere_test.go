package delta

import "testing"

func TestParsePredicate(t *testing.T) {
	for text, want := range map[string]string{
		"id > 5":                              "id > 5",
		"a=1 and b<>'it''s' or not (c >= -2)": "((a = 1) AND (b <> 'it''s')) OR (NOT (c >= -2))",
		"s.x IS NULL AND `a b`.c is not null": "(s.x IS NULL) AND (`a b`.c IS NOT NULL)",
		"a in (1, 2,3) AND b NOT IN ('x')":    "(a IN (1, 2, 3)) AND (NOT (b IN ('x')))",
		"d < 1.50 and e != 1e-3 and f = true": "((d < '1.50') AND (e <> '1e-3')) AND (f = true)",
	} {
		p, err := ParsePredicate(text)
		if err != nil || p.String() != want {
			t.Errorf("%s: %s, %v; want %s", text, p, err, want)
		}
	}
	for _, text := range []string{"", "id", "id >", "id > x", "id > 5 5", "(id > 5", "id in ()", "id in (1", "'a' = 1", "id ; 1", "a = 'x", "`a = 1", "not", "a is 5", "a = 1 and", "a == 1", "a = --1"} {
		if p, err := ParsePredicate(text); err == nil {
			t.Errorf("%q is taken for %s", text, p)
		}
	}
}

// FuzzParsePredicate: whatever the text, it is refused or means what it shows.
func FuzzParsePredicate(f *testing.F) {
	for _, s := range []string{"a=1 and b<>'it''s' or not (c >= -2)", "s.x IS NULL", "a in (1,2)", "((((", "not not not a = 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePredicate(text)
		if err != nil {
			return
		}
		if q, err := ParsePredicate(p.String()); err != nil || q.String() != p.String() {
			t.Errorf("%q shows as %s, which reads as %s, %v", text, p, q, err)
		}
	})
}
