module github.com/libdf11/libdf11/tests/packages/go

go 1.24.0

require github.com/libdf11/libdf11/bindings/go v0.0.0

replace github.com/libdf11/libdf11/bindings/go => ../../../bindings/go
