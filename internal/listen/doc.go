// Package listen accepts connections: it opens sockets or takes them from systemd, bounds how many connections there are in
// all and for each client, survives a lack of file descriptors, and says where a connection came from and where it wanted
// to go: the PROXY protocol of trusted load balancers, and the original destination of redirected traffic.
package listen
