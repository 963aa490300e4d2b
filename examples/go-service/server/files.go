package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errChanged says that a file is not the one that the model was opened from.
var errChanged = errors.New("the file has changed since the model was opened")

// files are a model's files as they were just before it was opened: by them a hash that is computed later, from the
// file of the same name, is known to be of the bytes that the model is decoded from.
type files map[string]fs.FileInfo

// look notes the file at path, or every safetensors file in the folder. What cannot be seen is left to those who open
// it.
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

// open opens a file of the model's, if it is still the same one.
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

// same fails with errChanged if the file is another one than the path had, or was written to.
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
