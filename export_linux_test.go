package reuse

// ForgetOptions makes this process read back what it sets, and probe Options, once more.
func ForgetOptions() {
	for o := range probeResults {
		probeResults[o].Store(nil)
	}
}

// ForgetRules makes this process probe once more what gVisor does otherwise.
func ForgetRules() {
	listenerJoins.Store(nil)
	optionHeeded.Store(nil)
}
