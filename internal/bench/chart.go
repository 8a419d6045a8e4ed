//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math"
)

// The chart's measures, in its own units.
const (
	chartWidth = 720
	chartLeft  = 110 // of the bars
	chartRight = 640
	barHeight  = 16
	rowHeight  = 22
	headHeight = 40
)

// chart draws the times of the calls as bars, of which the hand-written way's is 1. The
// colors follow the reader's.
func (r *results) chart() []byte {
	longest := 1.0
	for _, s := range r.calls {
		for _, w := range s.ways {
			longest = max(longest, s.ratio(w, hand).Center)
		}
	}
	x := func(ratio float64) float64 { return chartLeft + (chartRight-chartLeft)*ratio/longest }

	var body bytes.Buffer
	y := 8
	for _, s := range r.calls {
		y += headHeight
		fmt.Fprintf(&body, "<text class=\"h\" x=\"%d\" y=\"%d\">%s</text>\n", chartLeft, y-12, s.name)
		top := y
		for _, w := range s.ways {
			ratio := s.ratio(w, hand)
			class := "o"
			if w == ours {
				class = "r"
			}
			middle := float64(y) + barHeight/2
			fmt.Fprintf(&body, "<text class=\"n\" x=\"%d\" y=\"%.0f\">%s</text>", chartLeft-8, middle, w)
			fmt.Fprintf(&body, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>",
				class, chartLeft, y, x(ratio.Center)-chartLeft, barHeight)
			end := x(ratio.Center)
			if !math.IsInf(ratio.Lo, 0) && !math.IsInf(ratio.Hi, 0) {
				end = max(end, min(x(ratio.Hi), chartRight+10))
				fmt.Fprintf(&body, "<path class=\"e\" d=\"M%.1f %.0fH%.1f\"/>", x(ratio.Lo), middle, end)
			}
			fmt.Fprintf(&body, "<text x=\"%.1f\" y=\"%.0f\">%.2f</text>\n", end+6, middle, ratio.Center)
			y += rowHeight
		}
		fmt.Fprintf(&body, "<path class=\"l\" d=\"M%.1f %dV%d\"/>\n", x(1), top-4, y-2)
	}
	y += 10

	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%[1]d\" height=\"%[2]d\" role=\"img\">\n", chartWidth, y)
	b.WriteString("<title>Time of each call, with a Control function written by hand at 1; shorter is better</title>\n")
	b.WriteString("<style>svg{background:#fff;fill:#1a1f26;font:13px system-ui,sans-serif}text{dominant-baseline:central}" +
		".h{font-weight:600;font-size:14px}.n{text-anchor:end}.o{fill:#a9b4c0}.r{fill:#1f8a66}.e{stroke:#1a1f26;fill:none}" +
		".l{stroke:#5b6672;fill:none;stroke-dasharray:3 3}@media(prefers-color-scheme:dark){svg{background:#14181d;fill:#e3e8ed}" +
		".o{fill:#4a5663}.r{fill:#2fa37c}.e{stroke:#e3e8ed}.l{stroke:#98a4b0}}</style>\n")
	b.Write(body.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}
