package ip

// Mark is the bit of the firewall mark (SO_MARK in socket(7)) that is set on what comes from other hosts for containers
// of this one, so that the rules of others can be told to let it pass. Kubernetes uses the bits 0xc000, Cilium 0x0f00, Calico and
// Tailscale those above 0xffff.
const Mark = 0x2000

// KubeMark is the bit of the firewall mark that kube-proxy sets on what it masquerades itself, later (its --iptables-masquerade-bit,
// 14 unless set).
const KubeMark = 0x4000
