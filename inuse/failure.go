package inuse

// A failure is what an errno says of an address.
type failure uint8

const (
	other failure = iota
	inUse
	denied
	notAvailable
	noFamily
	invalid
	processFull // of descriptors
	systemFull
	notListening // nothing answers at a Unix socket's name
	otherType    // a Unix socket of another type has the name
)
