package control

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// PostgresSetting is what people may say of Postgres settings of an endpoint.
type PostgresSetting struct {
	Values string   // range with its unit, or words
	Names  []string // sorted
}

// PostgresSettings lists the settings endpoints may have, by their values.
func PostgresSettings() []PostgresSetting {
	names := map[string][]string{}
	for name, s := range allowed() {
		names[s.values()] = append(names[s.values()], name)
	}
	var list []PostgresSetting
	for _, values := range slices.Sorted(maps.Keys(names)) {
		slices.Sort(names[values])
		list = append(list, PostgresSetting{Values: values, Names: names[values]})
	}
	return list
}

func (s pgSetting) values() string {
	switch s.kind {
	case boolean:
		return "on, off"
	case word:
		return strings.Join(s.words, ", ")
	case text:
		return "text"
	}
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	return strings.TrimSpace(number(s.min) + " to " + number(s.max) + " " + s.unit)
}
