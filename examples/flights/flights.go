// Package flights carries the real data of the demonstration inside the
// binary. Source and terms stand in README.md beside it.
package flights

import _ "embed" // the files below

// FlightsParquet has the columns date (timestamp in µs without zone), delay
// (int64, minutes), distance (int64, miles), origin and destination (text).
//
//go:embed flights.parquet
var FlightsParquet []byte

// AirportsCSV has the header iata,name,city,state,country,latitude,longitude.
//
//go:embed airports.csv
var AirportsCSV []byte
