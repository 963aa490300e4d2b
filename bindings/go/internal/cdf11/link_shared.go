//go:build !df11_static

package cdf11

// Shared and static are two files and not two conditions in one, for Go's build cache knows files, and not what
// pkg-config is asked for: with conditions a package that was built the one way is taken for the other.

// #cgo pkg-config: df11
import "C"
