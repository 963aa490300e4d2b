package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errChanged reports a file that is not the one from which the model was opened.
var errChanged = errors.New("the file has changed since the model was opened")

// files describes a model's files just before it was opened. It shows that a hash that is computed later from a file of
// the same name is of the bytes from which the model is decoded.
type files map[string]fs.FileInfo

// look records the file at path, or every safetensors file in the folder. Errors are left to the code that opens the
// files.
func look(path string) files {
	found := files{}
	note := func(path string) {
		if info, err := os.Stat(path); err == nil {
			found[filepath.Clean(path)] = info
		}
	}
	note(path)
	if listed, err := os.ReadDir(path); err == nil {
		for _, entry := range listed {
			if filepath.Ext(entry.Name()) == ".safetensors" {
				note(filepath.Join(path, entry.Name()))
			}
		}
	}
	return found
}

// open opens a file of the model if it is still the same.
func (f files) open(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := f.same(path, file); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// same fails with errChanged if the path leads to another file than before, or if the file was written to.
func (f files) same(path string, file *os.File) error {
	before := f[filepath.Clean(path)]
	now, err := file.Stat()
	if err != nil {
		return err
	}
	if before == nil || !os.SameFile(before, now) || before.Size() != now.Size() ||
		!before.ModTime().Equal(now.ModTime()) {
		return fmt.Errorf("%q: %w", path, errChanged)
	}
	return nil
}
