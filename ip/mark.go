package ip

// Mark is the bit of the firewall mark (fwmark, packet(7)) that is set on what comes from the fabric for this host's containers. Others'
// rules can be told to let such packets pass. It is none of the bits that Kubernetes, Cilium, Calico and Tailscale use.
const Mark = 0x2000
