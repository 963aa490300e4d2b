//go:build !race

package server

// race says that the race detector watches, whose shadow memory is many times what it watches.
const race = false
