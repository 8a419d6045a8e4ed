module example.com/reuse/test/bench

go 1.25.0

require (
	example.com/reuse v0.0.0
	github.com/cloudflare/tableflip v1.2.3
	github.com/kavu/go_reuseport v1.5.0
	github.com/libp2p/go-reuseport v0.4.0
	github.com/stretchr/testify v1.12.1
	github.com/valyala/fasthttp v1.73.0
	golang.org/x/sys v0.47.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace example.com/reuse => ../..
