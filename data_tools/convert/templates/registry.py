"""All chat templates by name: register a new one here."""

from acc_megatron.common.registry import Registry
from acc_megatron.data_tools.convert.templates.qwen3 import Qwen3
from acc_megatron.data_tools.convert.templates.qwen3_coder import Qwen3Coder
from acc_megatron.data_tools.convert.templates.qwen3_instruct_2507 import Qwen3Instruct2507
from acc_megatron.data_tools.convert.templates.qwen3_thinking_2507 import Qwen3Thinking2507
from acc_megatron.data_tools.convert.templates.template import ChatTemplate

QWEN3 = Qwen3()
TEMPLATES: Registry[ChatTemplate] = Registry(
    "template",
    {template.name: template for template in (QWEN3, Qwen3Thinking2507(), Qwen3Instruct2507(), Qwen3Coder())},
)
