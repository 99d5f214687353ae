// casbin-peer MODEL.conf POLICY.csv REQUESTS.tsv MILLISECONDS: what a decision costs Casbin, its
// policy loaded before the clock starts.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/casbin/casbin/v2"
)

func main() {
	enforcer, err := casbin.NewEnforcer(os.Args[1], os.Args[2])
	if err != nil {
		panic(err)
	}
	text, err := os.ReadFile(os.Args[3])
	if err != nil {
		panic(err)
	}
	var requests [][]any
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		fields := strings.Split(line, "\t")
		requests = append(requests, []any{fields[0], fields[1], fields[2]})
	}
	ms, err := strconv.Atoi(os.Args[4])
	if err != nil {
		panic(err)
	}
	bound := time.Duration(ms) * time.Millisecond
	var verdicts strings.Builder
	done := 0
	start := time.Now()
	for done < 20 || time.Since(start) < bound { // some requests at least, however slow.
		allowed, err := enforcer.Enforce(requests[done%len(requests)]...)
		if err != nil {
			panic(err)
		}
		if done < len(requests) {
			if allowed {
				verdicts.WriteByte('1')
			} else {
				verdicts.WriteByte('0')
			}
		}
		done++
	}
	ns := float64(time.Since(start).Nanoseconds()) / float64(done)
	fmt.Printf("{\"ns\": %.2f, \"verdicts\": \"%s\"}\n", ns, verdicts.String())
}
