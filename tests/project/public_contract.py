"""The public names that programs and documents rely on: what there is, what it takes and in which order.

Written out and not derived from the code; test_public_names.py compares. Additions are free: further members,
and further parameters that have a default. Parameters stand here without self; `...` is any default.
"""

PROPERTY = "(property)"
ATTRIBUTE = "(attribute)"
DUNDER = "(protocol of the language)"

FUNCTIONS = {
    "open_adapter": (
        "address=..., *, version=..., transport=..., datapath=..., config=..., network=..., strict=..., trace=..."
    ),
}

_CLOSABLE = {"__enter__": DUNDER, "__exit__": DUNDER}
_READ_LIMITS = "inbound_read_limit=..., outbound_read_limit=..."
_QP_LIMITS = "max_initiator_sge=..., inline_data_size=..., context=..."

CLASSES: dict[str, dict[str, str]] = {
    "Pending": {
        "result": "timeout=...",
        "exception": "timeout=...",
        "done": "",
        "cancel": "",
        "add_done_callback": "fn",
        "__await__": DUNDER,
    },
    "NdkObject": {
        "name": ATTRIBUTE,
        "version": PROPERTY,
        "object_type": PROPERTY,
        "closing": PROPERTY,
        "closed": PROPERTY,
        "close": "*, on_done=...",
        "query_extension": "interface_id, version",
        "__aenter__": DUNDER,
        "__aexit__": DUNDER,
    }
    | _CLOSABLE,
    "Adapter": {
        "datapath": PROPERTY,
        "open_objects": PROPERTY,
        "query_info": "",
        "query_statistics": "",
        "create_cq": "depth, on_notify=...",
        "create_pd": "",
        "create_connector": "",
        "create_listener": "on_connect=...",
        "create_shared_endpoint": "address",
        "build_lam": "buffer, *, length=...",
        "listen": "address=...",
        "connect": f"qp, destination, *, private_data=..., {_READ_LIMITS}, on_disconnect=...",
    },
    "Mdl": {"address": ATTRIBUTE, "length": ATTRIBUTE, "__init__": "buffers, *, address=..."},
    "LogicalAddressMapping": {
        "pages": ATTRIBUTE,
        "fbo": ATTRIBUTE,
        "length": ATTRIBUTE,
        "address": ATTRIBUTE,
        "sges": "offset, length, token",
        "release": "",
    }
    | _CLOSABLE,
    "Pd": {
        "privileged_token": PROPERTY,
        "register_mr": "buffer, flags=..., *, length=...",
        "create_mr": "*, fast_register=...",
        "create_mw": "",
        "create_srq": "depth, *, max_receive_sge=..., notify_threshold=..., on_notify=...",
        "create_qp": (
            "receive_cq, initiator_cq, *, receive_queue_depth, initiator_queue_depth,"
            f" max_receive_sge=..., {_QP_LIMITS}"
        ),
        "create_qp_with_srq": f"receive_cq, initiator_cq, srq, *, initiator_queue_depth, {_QP_LIMITS}",
    },
    "Mr": {
        "address": PROPERTY,
        "length": PROPERTY,
        "local_token": PROPERTY,
        "remote_token": PROPERTY,
        "view": PROPERTY,
        "register": "buffer, flags, *, length=...",
        "deregister": "",
        "initialize_fast_register": "page_count, allow_remote_access",
        "__getitem__": DUNDER,
    },
    "Mw": {"remote_token": PROPERTY},
    "Qp": {
        "context": ATTRIBUTE,
        "connector": PROPERTY,
        "send": "sgl, *, flags=..., context=...",
        "send_and_invalidate": "sgl, remote_token, *, flags=..., context=...",
        "receive": "sgl, *, context=...",
        "read": "sgl, remote_address, remote_token, *, flags=..., context=...",
        "write": "sgl, remote_address, remote_token, *, flags=..., context=...",
        "bind": "mr, mw, address=..., length=..., *, flags, context=...",
        "fast_register": "mr, pages, *, fbo=..., length=..., base_address=..., flags, context=...",
        "invalidate": "target, *, flags=..., context=...",
        "flush": "",
        "send_immediate": "data, *, flags=..., context=...",
        "fetch_add": "sgl, remote_address, remote_token, add, *, mask=..., flags=..., context=...",
        "compare_swap": (
            "sgl, remote_address, remote_token, compare, swap, *, compare_mask=..., swap_mask=..., flags=..., context=..."
        ),
    },
    "Srq": {
        "depth": PROPERTY,
        "receive": "sgl, *, context=...",
        "modify": "depth=..., notify_threshold=...",
    },
    "Cq": {
        "depth": PROPERTY,
        "status": PROPERTY,
        "get_results": "max_results=...",
        "arm": "kind=...",
        "resize": "depth",
        "control_interrupt_moderation": "interval_us, count",
        "wait": "timeout=..., *, max_results=..., kind=...",
        "next_results": "*, max_results=..., kind=...",
        "fileno": "",
        "__aiter__": DUNDER,
    },
    "Connector": {
        "connect": f"qp, destination, *, source=..., {_READ_LIMITS}, private_data=...",
        "connect_with_shared_endpoint": f"qp, endpoint, destination, *, {_READ_LIMITS}, private_data=...",
        "complete_connect": "*, on_disconnect=...",
        "accept": f"qp, *, {_READ_LIMITS}, private_data=..., on_disconnect=...",
        "reject": "private_data=...",
        "disconnect": "",
        "disconnected": PROPERTY,
        "connection_data": PROPERTY,
        "local_address": PROPERTY,
        "peer_address": PROPERTY,
    },
    "Listener": {
        "local_address": PROPERTY,
        "listen": "address",
        "control_connect_events": "*, pause",
        "next_request": "",
        "fileno": "",
        "__iter__": DUNDER,
        "__aiter__": DUNDER,
    },
    "SharedEndpoint": {"local_address": PROPERTY},
    "Status": {"is_success": PROPERTY},
    "Sge": {"inline": "data"},
    "Result": {"is_receive": PROPERTY, "error": PROPERTY, "check": ""},
    "NdkError": {
        "status": ATTRIBUTE,
        "provider_error_code": ATTRIBUTE,
        "fault": ATTRIBUTE,
        "private_data": ATTRIBUTE,
        "explain": "",
    },
}

# Frozen dataclasses, as their constructors take them.
RECORDS = {
    "Sge": "address, length, token",
    "Result": (
        "*, type, status=..., bytes_transferred=..., qp_context=..., request_context=...,"
        " provider_error_code=..., invalidated_token=..., immediate_data=..., original_value=..."
    ),
    "Fault": "*, layer, etype, code, received, header, rule, text",
    "Disconnect": "*, graceful, provider_reason, error",
    "ConnectionData": "*, private_data, inbound_read_limit, outbound_read_limit",
    "AdapterInfo": (
        "*, version, vendor_id, device_id, max_registration_size, max_window_size, frmr_page_count,"
        " max_initiator_request_sge, max_receive_request_sge, max_read_request_sge, max_transfer_length,"
        " max_inline_data_size, max_inbound_read_limit, max_outbound_read_limit, max_receive_queue_depth,"
        " max_initiator_queue_depth, max_srq_depth, max_cq_depth, large_request_threshold, max_caller_data,"
        " max_callee_data, adapter_flags, rdma_technology, extensions"
    ),
    "AdapterStatistics": (
        "*, connect, accept, connect_failure, connection_error, active_connection, cq_error,"
        " rdma_in_octets, rdma_out_octets, rdma_in_frames, rdma_out_frames"
    ),
    "TransportConfig": "",
    "IwarpConfig": (
        "*, crc=..., markers=..., mpa_revision=..., max_fpdu=..., connect_timeout_s=...,"
        " accept_timeout_s=..., disconnect_timeout_s=..., terminate_drain_s=..., receive_wait_s=...,"
        " keepalive_s=..., max_pending_requests=..., rfc7306=..."
    ),
}

ENUMS = {
    "Status": {
        "SUCCESS": 0x00000000,
        "TIMEOUT": 0x00000102,
        "PENDING": 0x00000103,
        "BUFFER_OVERFLOW": 0x80000005,
        "DEVICE_BUSY": 0x80000011,
        "NO_MORE_ENTRIES": 0x8000001A,
        "UNSUCCESSFUL": 0xC0000001,
        "ACCESS_VIOLATION": 0xC0000005,
        "INVALID_HANDLE": 0xC0000008,
        "INVALID_PARAMETER": 0xC000000D,
        "INVALID_DEVICE_REQUEST": 0xC0000010,
        "NO_MEMORY": 0xC0000017,
        "BUFFER_TOO_SMALL": 0xC0000023,
        "INVALID_PARAMETER_MIX": 0xC0000030,
        "DATA_OVERRUN": 0xC000003C,
        "DATA_ERROR": 0xC000003E,
        "SHARING_VIOLATION": 0xC0000043,
        "INSUFFICIENT_RESOURCES": 0xC000009A,
        "DEVICE_NOT_READY": 0xC00000A3,
        "IO_TIMEOUT": 0xC00000B5,
        "NOT_SUPPORTED": 0xC00000BB,
        "INTERNAL_ERROR": 0xC00000E5,
        "CANCELLED": 0xC0000120,
        "REMOTE_RESOURCES": 0xC000013D,
        "INVALID_ADDRESS": 0xC0000141,
        "INVALID_DEVICE_STATE": 0xC0000184,
        "INVALID_BUFFER_SIZE": 0xC0000206,
        "TOO_MANY_ADDRESSES": 0xC0000209,
        "ADDRESS_ALREADY_EXISTS": 0xC000020A,
        "CONNECTION_DISCONNECTED": 0xC000020C,
        "CONNECTION_RESET": 0xC000020D,
        "CONNECTION_REFUSED": 0xC0000236,
        "CONNECTION_INVALID": 0xC000023A,
        "CONNECTION_ACTIVE": 0xC000023B,
        "NETWORK_UNREACHABLE": 0xC000023C,
        "HOST_UNREACHABLE": 0xC000023D,
        "CONNECTION_ABORTED": 0xC0000241,
        "DEVICE_REMOVED": 0xC00002B6,
        "IMPLEMENTATION_LIMIT": 0xC000042B,
        "NDIS_BAD_VERSION": 0xC0010004,
        "NDIS_ADAPTER_NOT_READY": 0xC0010011,
        "NDIS_RESOURCES": 0xC000009A,
    }
    | {f"INVALID_PARAMETER_{n}": 0xC00000EE + n for n in range(1, 11)},
    "OpFlag": {
        "SILENT_SUCCESS": 0x001,
        "READ_FENCE": 0x002,
        "SEND_AND_SOLICIT_EVENT": 0x004,
        "ALLOW_REMOTE_READ": 0x008,
        "ALLOW_LOCAL_WRITE": 0x010,
        "ALLOW_REMOTE_WRITE": 0x030,
        "INLINE": 0x040,
        "RDMA_READ_SINK": 0x080,
        "RDMA_READ_LOCAL_INVALIDATE": 0x100,
        "DEFER": 0x200,
        "ALLOW_REMOTE_ATOMIC": 0x10000,
    },
    "MrFlag": {
        "ALLOW_LOCAL_READ": 0x0,
        "ALLOW_LOCAL_WRITE": 0x1,
        "ALLOW_REMOTE_READ": 0x2,
        "ALLOW_REMOTE_WRITE": 0x5,
        "RDMA_READ_SINK": 0x8,
        "ALLOW_REMOTE_ATOMIC": 0x10000,
    },
    "CqNotify": {"ERRORS": 0, "ANY": 1, "SOLICITED": 2},
    "OperationType": {
        "RECEIVE": 1,
        "SEND": 2,
        "FAST_REGISTER": 4,
        "BIND": 8,
        "INVALIDATE": 16,
        "READ": 32,
        "WRITE": 64,
        "RECEIVE_AND_INVALIDATE": 0x8001,
        "RECEIVE_IMMEDIATE": 0x10001,
        "SEND_IMMEDIATE": 0x10002,
        "FETCH_ADD": 0x10100,
        "COMPARE_SWAP": 0x10200,
    },
    "Extension": {"IMMEDIATE_DATA": 0x1, "ATOMIC_FETCH_ADD": 0x2, "ATOMIC_COMPARE_SWAP": 0x4},
    "ObjectType": {
        "ADAPTER": 1,
        "QP": 2,
        "CQ": 3,
        "MR": 4,
        "MW": 5,
        "PD": 6,
        "SHARED_ENDPOINT": 7,
        "CONNECTOR": 8,
        "LISTENER": 9,
        "SRQ": 10,
    },
    "RdmaTechnology": {"UNDEFINED": 0, "IWARP": 1, "INFINIBAND": 2, "ROCE": 3, "ROCE_V2": 4},
    "AdapterFlag": {
        "IN_ORDER_DMA_SUPPORTED": 0x00000001,
        "RDMA_READ_SINK_NOT_REQUIRED": 0x00000002,
        "CQ_INTERRUPT_MODERATION_SUPPORTED": 0x00000004,
        "MULTI_ENGINE_SUPPORTED": 0x00000008,
        "RDMA_READ_LOCAL_INVALIDATE_SUPPORTED": 0x00000010,
        "CQ_RESIZE_SUPPORTED": 0x00000100,
        "LOOPBACK_CONNECTIONS_SUPPORTED": 0x00010000,
    },
}

ERRORS: dict[str, type[Exception]] = {
    "InvalidParameter": ValueError,
    "DataOverrun": ValueError,
    "InvalidHandle": ValueError,
    "InvalidState": RuntimeError,
    "InternalError": RuntimeError,
    "QueueFull": BlockingIOError,
    "AccessViolation": PermissionError,
    "ConnectionInvalid": ConnectionError,
    "RemoteError": ConnectionError,
    "Refused": ConnectionRefusedError,
    "Aborted": ConnectionAbortedError,
    "RequestCancelled": ConnectionResetError,
    "IoTimeout": TimeoutError,
    "AddressUnavailable": OSError,
    "Unreachable": OSError,
    "InsufficientResources": OSError,
    "BufferOverflow": OSError,
    "AdapterUnavailable": OSError,
    "NotSupported": NotImplementedError,
}

OTHER_NAMES = {
    "Address",
    "LocalToken",
    "MAXULONG",
    "Memory",
    "NdkVersion",
    "PAGE_SIZE",
    "RemoteToken",
    "Sgl",
}

TESTING_NAMES = {"pair", "kill", "fail_adapter"}

NDK_OBJECTS = {
    "Adapter",
    "Connector",
    "Cq",
    "Listener",
    "Mr",
    "Mw",
    "Pd",
    "Qp",
    "SharedEndpoint",
    "Srq",
}

# Not there yet. Whoever adds one takes it out of here; while it stands here, only its absence is forgiven.
LATER: set[str] = set()

# Declared by a module for the other modules, not for the program.
INTERNAL = {
    "ADAPTER_NUMBERS",
    "address_text",
    "ENDPOINTS",
    "VERSIONS",
    "AdapterContext",
    "DYNAMIC_PORTS",
    "Counters",
    "IncidentLog",
    "NumberTable",
    "EndpointTable",
    "adapter_info",
    "atomic_request",
    "bind_request",
    "candidate_ports",
    "check_address",
    "check_capacity",
    "check_int",
    "check_limit",
    "checked_private_data",
    "checked_read_limits",
    "fast_register_request",
    "immediate_request",
    "invalidate_request",
    "local_end",
    "make_stream",
    "one_spelling",
    "read_request",
    "send_request",
    "shared_end",
    "source_of",
    "write_request",
    "connections",
    "endpoints",
    "snapshot",
    "watch_overlaps",
    "check_sge",
    "checked_sges",
    "error_for",
    "error_from_os",
    "fresh_copy",
    "no_port_free",
}

CONTRACT = (FUNCTIONS.keys() | CLASSES.keys() | RECORDS.keys() | ENUMS.keys() | ERRORS.keys() | OTHER_NAMES) - LATER
