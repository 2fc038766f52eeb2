"""Which operators an uploaded program may name, and which strings they may be given.

torch.export resolves an operator's name by walking attributes of torch, operator and math, so that `torch.save` or
`_operator.methodcaller` would be taken as readily as `torch.ops.aten.relu.default`. Listed here is what a trained
network needs; operators that touch files, resize or re-point storage, change the process's state or belong to
back-ends that this product does not run are refused by name.
"""

from __future__ import annotations

import re

from compressors.archive_json import shorten, words
from compressors.errors import UnsafeArchive

_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z][A-Za-z0-9_]*)", re.ASCII)
_PRIVATE = words(
    "__and__ __iand__ __ior__ __lshift__ __or__ __rshift__ __xor__ "
    "_adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar _assert_tensor_metadata "
    "_batch_norm_no_update _batch_norm_with_update _conj _convolution _embedding_bag _embedding_bag_forward_only "
    "_log_softmax _native_batch_norm_legit _native_batch_norm_legit_functional "
    "_native_batch_norm_legit_no_training _native_multi_head_attention _prelu_kernel _reshape_alias _safe_softmax "
    "_scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu _softmax _to_copy "
    "_transformer_encoder_layer_fwd _trilinear _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa "
    "_weight_norm _weight_norm_interface"
)
_REFUSED = words(
    "from_file save load warn print format set set_ set_data data resize resize_ resize_as resize_as_ "
    "record_stream data_ptr manual_seed seed initial_seed set_grad_enabled requires_grad_ retain_grad backward "
    "hash has_torch_function wait to_here owner owner_name local_value confirmed_by_owner get_autocast_dtype "
    "pin_memory item_ is_scripting to_mkldnn to_sparse to_sparse_csr to_sparse_csc to_sparse_bsr to_sparse_bsc "
    "segment_reduce rename names align_to factorial chr ord str percentFormat zfill expandtabs ljust rjust center "
    "join append extend insert"
)
_BACKENDS = ("sparse_", "cudnn_", "miopen_", "mkldnn_", "mps_", "quantized_", "fbgemm_", "nested_", "fake_quantize_")
# Attributes of an operator packet that are not overloads of it.
_NOT_OVERLOADS = frozenset({"op", "overloads", "name", "namespace", "call", "decompose", "redispatch", "tags"})
_SCALAR = words(
    "_operator.add _operator.sub _operator.mul _operator.floordiv _operator.truediv _operator.mod _operator.neg "
    "_operator.pos _operator.abs _operator.eq _operator.ne _operator.lt _operator.le _operator.gt _operator.ge "
    "_operator.and_ _operator.or_ _operator.getitem math.trunc math.ceil math.floor math.sqrt "
    "torch.sym_int torch.sym_float torch.sym_ite torch.sym_max torch.sym_min torch.sym_not torch.sym_sqrt torch.sym_sum"
)
_REGIONS = frozenset({"torch.ops.higher_order.wrap_with_set_grad_enabled"})
_WORD = re.compile(r"[A-Za-z0-9_]{0,40}", re.ASCII)
_EQUATION = re.compile(r"[A-Za-z., >\-]{1,200}", re.ASCII)


def operator(target: str, where: str) -> str:
    """The target of one node. Raises UnsafeArchive that names it."""
    if target in _SCALAR or target in _REGIONS:
        return target
    match = _ATEN.fullmatch(target)
    if match:
        name, overload = match.groups()
        known = name in _PRIVATE if name.startswith("_") else name not in _REFUSED and not name.startswith(_BACKENDS)
        if known and overload not in _NOT_OVERLOADS:
            return target
    raise UnsafeArchive(
        f"{where}: operator {shorten(target)} is not read from an uploaded file; models may use the tensor operators "
        "of torch.ops.aten only; express it with plain torch functions and export again"
    )


def operator_string(text: str, target: str, where: str) -> str:
    """A string argument: a mode such as 'reflect', an einsum equation or the message of an assertion."""
    if target.startswith("torch.ops.aten._assert_"):
        fits = len(text) <= 2000 and text.isprintable()
    elif target == "torch.ops.aten.einsum.default":
        fits = _EQUATION.fullmatch(text) is not None
    else:
        fits = _WORD.fullmatch(text) is not None
    if not fits:
        raise UnsafeArchive(
            f"{where}: {target} with the text {shorten(text)}; only the names of modes ('reflect', 'same') are read; "
            "remove the argument and export again"
        )
    return text
