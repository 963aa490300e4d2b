//go:build race

package server

// race says whether the race detector is on. Its shadow memory is many times the size of the program's.
const race = true
