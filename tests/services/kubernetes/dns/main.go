// CoreDNS with the few of its plugins that a cluster's names need, in the order in which a query passes them. kubernetes.sh builds it into the cache and runs it;
// a word `standpipe.service=DIR` before the first argument is for ps alone.
package main

import (
	"os"
	"strings"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func init() {
	dnsserver.Directives = []string{"bind", "health", "ready", "errors", "template", "kubernetes"}
}

func main() {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "standpipe.service=") {
		os.Args = append(os.Args[:1], os.Args[2:]...)
	}
	coremain.Run()
}
