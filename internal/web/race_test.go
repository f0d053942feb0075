//go:build race

package web

// raceEnabled says that the race detector's memory would be counted too.
const raceEnabled = true
