package inuse

// A failure is what an errno says of an address.
type failure uint8

const (
	other failure = iota
	inUse
	denied
	notAvailable
	noFamily
)
