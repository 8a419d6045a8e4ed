module example.com/reuse/internal/bench

go 1.25.0

require (
	example.com/reuse v0.0.0
	github.com/stretchr/testify v1.12.1
	golang.org/x/sys v0.47.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace example.com/reuse => ../..
