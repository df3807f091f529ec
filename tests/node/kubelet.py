"""What a kubelet asks of a container runtime: `kubelet.py start` makes a pod with one container and prints the container's
id, `kubelet.py stop` removes both. Debian has no kubelet; the messages of its interface (CRI, v1) are encoded here."""

import sys

import grpc

UID = "11111111-2222-3333-4444-555555555555"
PARENT = f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice"
IDS = "/tmp/kubelet-ids"


def varint(number):
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def text(field, value):
    """A string, or a message that is already encoded."""
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def number(field, value):
    return varint(field << 3) + varint(value)


def pairs(field, values):
    return b"".join(text(field, text(1, key) + text(2, value)) for key, value in values.items())


channel = grpc.insecure_channel("unix:///run/containerd/containerd.sock")


def call(name, request):
    method = channel.unary_unary(
        f"/runtime.v1.RuntimeService/{name}", request_serializer=bytes, response_deserializer=bytes
    )
    return method(request, timeout=150)


def first_text(answer):
    """Field 1 of an answer: an id of less than 128 bytes."""
    return answer[2 : 2 + answer[1]].decode()


def start():
    labels = {
        "io.kubernetes.pod.name": "trainer-0",
        "io.kubernetes.pod.namespace": "ml-team",
        "io.kubernetes.pod.uid": UID,
    }
    metadata = text(1, "trainer-0") + text(2, UID) + text(3, "ml-team") + number(4, 0)
    # The node's network, so that no plugin for networks is needed; the pod's own processes.
    namespaces = number(1, 2) + number(2, 1) + number(3, 2)
    linux = text(1, PARENT) + text(2, text(1, namespaces))
    sandbox = text(1, metadata) + text(3, "/var/log/pods/trainer") + pairs(6, labels) + text(8, linux)
    pod = first_text(call("RunPodSandbox", text(1, sandbox)))
    container = (
        text(1, text(1, "worker") + number(2, 0))
        + text(2, text(1, "localhost/pause:1"))
        + text(3, "/burn")
        + text(4, "3000")
        + pairs(9, {"io.kubernetes.container.name": "worker", **labels})
        + text(11, "worker/0.log")
    )
    made = first_text(call("CreateContainer", text(1, pod) + text(2, container) + text(3, sandbox)))
    call("StartContainer", text(1, made))
    with open(IDS, "w") as file:
        file.write(f"{pod} {made}")
    print(made)


def stop():
    with open(IDS) as file:
        pod, made = file.read().split()
    call("StopContainer", text(1, made) + number(2, 0))
    call("RemoveContainer", text(1, made))
    call("StopPodSandbox", text(1, pod))
    call("RemovePodSandbox", text(1, pod))


{"start": start, "stop": stop}[sys.argv[1]]()
