module github.com/libdf11/libdf11/bindings/go

go 1.24.0
