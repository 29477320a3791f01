// What holds a pod's namespaces: it waits until it is told to end. Kubernetes' own comes as an image from a registry; there is none here.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
}
