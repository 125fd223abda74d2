"""Every key of GPT-NeoX's configurations, from version 1.0 to May 2026, and what becomes of it here.

A key is *translated*, or has one *fixed* meaning here, so that other values are refused, or is *ignored* for
a reason. A key in none of these tables is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Keys that are translated, and to what: a key of our TOML, or an option of the order.
TRANSLATED = {
    "num_layers": "[model] n_layers",
    "hidden_size": "[model] hidden_size",
    "num_attention_heads": "[model] n_heads",
    "rotary_pct": "[model] rotary_pct",
    "rotary_emb_base": "[model] rotary_base",
    "layernorm_epsilon": "[model] layer_norm_eps",
    "gpt_j_residual": "[model] parallel_residual",
    "bias_gelu_fusion": "[model] hidden_act",
    "init_method": "[model] init",
    "output_layer_init_method": "[model] init",
    "make_vocab_size_divisible_by": "[model] vocab_size",
    "padded_vocab_size": "[model] vocab_size",
    "optimizer": "[optimizer] lr, betas, eps",
    "lr": "[optimizer] lr",
    "min_lr": "[optimizer] min_lr",
    "warmup": "[optimizer] warmup",
    "lr_decay_style": "[optimizer] schedule",
    "lr_decay_iters": "steps",
    "intermediate_size": "[model] hidden_size, four times",
    "num_kv_heads": "[model] n_heads",
    "init_method_std": "[model] init",
    "attention_config": "always so: attention to all earlier tokens",
    "weight_decay": "[optimizer] weight_decay",
    "gradient_clipping": "[optimizer] gradient_clipping",
    "clip_grad": "[optimizer] gradient_clipping",
    "train_iters": "steps",
    "train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "gradient_accumulation_steps": "batch_size",
    "gas": "batch_size",
    "fp16": "precision",
    "bf16": "precision",
    "precision": "precision",
    "seed": "seed, and --seed of the order",
    "seq_length": "--seq-length of the order",
    "max_position_embeddings": "--seq-length of the order",
    "checkpoint_factor": "checkpoint_every",
    "save_interval": "checkpoint_every",
    "save": "output",
    "vocab_file": "tokenizer",
    "data_path": "the dataset of the order",
    "train_data_paths": "the datasets of the order",
    "train_data_weights": "--weights of the order",
    "weight_by_num_documents": "the weights of the order",
    "weighted_sampler_alpha": "--alpha of the order",
    "split": "--split of the order",
    "pack_impl": "--packing of the order",
    "allow_chopped": "--no-chop of the order",
    "model_parallel_size": "[model] vocab_size, by its padding; no matrix is split over ranks",
    "zero_optimization": "[deepspeed] zero_stage; its buckets are set by our DeepSpeed configuration",
    "zero_stage": "[deepspeed] zero_stage",
    "checkpoint_activations": "activation_checkpointing",
}


@dataclass(frozen=True)
class Fixed:
    """A key with one meaning here.

    Attributes:
        values: The values it may have; None is null.
        default: What GPT-NeoX takes if the key is missing.
        why: What is so here.
    """

    values: tuple[Any, ...]
    default: Any
    why: str


_OFF: tuple[Any, ...] = (None, False, 0, 0.0)
_NO_MOE = Fixed((None, 1), 1, "blocks are dense")
_NO_POST = Fixed(("normal", None), "normal", "pretraining alone, no preference data or rewards")

#: A missing value: its default differs between versions of GPT-NeoX.
UNKNOWN = object()

FIXED = {
    "norm": Fixed(("layernorm", "te_layernorm"), "layernorm", "layer norms"),
    "pos_emb": Fixed(("rotary",), "learned", "rotary embeddings"),
    "no_weight_tying": Fixed((True,), False, "the output layer has its own weights"),
    "gpt_j_tied": Fixed((False, None), False, "a block has two layer norms"),
    "activation": Fixed(("gelu",), "gelu", "GELU"),
    "hidden_dropout": Fixed((0, 0.0), UNKNOWN, "no dropout"),
    "attention_dropout": Fixed((0, 0.0), UNKNOWN, "no dropout"),
    "apply_query_key_layer_scaling": Fixed(_OFF, False, "scores are scaled by the head's width alone"),
    "use_qk_layernorm": Fixed(_OFF, False, "no layer norm of queries and keys"),
    "use_bias_in_norms": Fixed((True, None), True, "layer norms have biases"),
    "use_bias_in_attn_linear": Fixed((True, None), True, "attention has biases"),
    "use_bias_in_mlp": Fixed((True, None), True, "the MLP has biases"),
    "num_unique_layers": Fixed((None,), None, "every block has its own weights"),
    "mlp_multiple_of": Fixed((None, 1), 1, "the MLP is four times as wide as the residual stream"),
    "expansion_factor": Fixed((None, 4, 4.0), None, "the MLP is four times as wide as the residual stream"),
    "sliding_window_width": Fixed((None,), None, "attention to all earlier tokens"),
    "opt_pos_emb_offset": Fixed(_OFF, 0, "positions start at 0"),
    "soft_prompt_tuning": Fixed((None, {}), None, "no soft prompts"),
    "sparse_attention": Fixed((None, {}), None, "attention to all earlier tokens"),
    "sparsity_config": Fixed((None, {}), None, "attention to all earlier tokens"),
    "eod_mask_loss": Fixed(_OFF, False, "every token counts in the loss"),
    "z_loss": Fixed(_OFF, 0.0, "cross-entropy alone"),
    "use_mup": Fixed(_OFF, False, "standard parametrization"),
    "moe_num_experts": _NO_MOE,
    "train_impl": _NO_POST,
    "dataset_impl": Fixed(("gpt2", None), "gpt2", "documents packed into samples"),
    "curriculum_learning": Fixed((None, {}), None, "sequences of one length"),
    "curriculum_seqlen": Fixed(_OFF, 0, "sequences of one length"),
    "data_efficiency": Fixed((None, {}), None, "sequences of one length"),
    "compression_training": Fixed((None, {}), None, "no compression while training"),
    "checkpoint_scale": Fixed(("linear",), "linear", "checkpoints are equally far apart"),
    "train_epochs": Fixed((None,), None, "a run is counted in steps; give train_iters"),
    "lr_decay_fraction": Fixed((None,), None, "the rate falls until the last step"),
    "scheduler": Fixed((None, {}), None, "GPT-NeoX's own schedules, not DeepSpeed's"),
    "override_lr_scheduler": Fixed(_OFF, False, "a resumed run has its own schedule"),
    "finetune": Fixed(_OFF, False, "a run starts from its own first weights"),
    "use_bnb_optimizer": Fixed(_OFF, False, "AdamW of PyTorch"),
    "train_label_data_paths": Fixed((None, []), None, "every token is predicted"),
    "train_reward_data_paths": Fixed((None, []), None, "pretraining alone"),
}

_PARALLEL = "DeepSpeed and the launcher spread the work; the data of a step do not depend on it"
_STAGES = "set `pipeline_stages` in [deepspeed] to divide blocks among GPUs; results do not depend on it"
_ZERO = "set by our DeepSpeed configuration"
_LAUNCH = "for the launcher of GPT-NeoX; here `torchrun` or `deepspeed` starts the processes"
_LOG = "every step is logged with loss, rate and norm, in train_log.jsonl"
_WATCH = "for a service that watches runs; train_log.jsonl has the values"
_PROFILE = "profiling changes no result"
_KERNEL = "a kernel; PyTorch chooses its own"
_RECOMPUTE = "how activations are computed again changes no result"
_DATA = "how files are read changes no result"
_DATASET = "decided where the dataset is made: `pile-tools tokenize`"
_EVAL = "validation has a table of its own, [validation]"
_HELD_OUT = "validation data are those of the order in [validation]"
_SAVE = "checkpoints and states are saved by our rules, and nothing is removed"
_LOAD = "the same command resumes"
_GENERATE = "of text generation: `pile-train generate` has options for it"
_OTHER_MODEL = "of another architecture, which other keys would have to choose"
_MOE = "of mixtures of experts; blocks are dense"
_MUP = "of muP, which is off"
_POST = "of preference training, which other keys would have to choose"
_DERIVED = "computed by GPT-NeoX from other keys"
_SCALER = "of the loss scaling, which has its own defaults here"
_TE = "of TransformerEngine, whose kernels are not used"
_COMM = "of the communication, which DeepSpeed chooses"
_AUTOTUNE = "of DeepSpeed's autotuning; `pile-train plan` states memory and time"

_BY_REASON = {
    _PARALLEL: "sequence_parallel output_layer_parallelism world_size global_num_gpus",
    _STAGES: "pipe_parallel_size pipe_partition_method is_pipe_parallel",
    _ZERO: (
        "zero_reduce_scatter zero_contiguous_gradients "
        "zero_reduce_bucket_size zero_allgather_bucket_size zero_allow_untested_optimizer data_types "
        "deepspeed_extra_args checkpoint sparse_gradients amp deepspeed"
    ),
    _LAUNCH: (
        "hostfile include exclude num_nodes num_gpus master_port master_addr launcher force_multi "
        "no_ssh_check comment account deepspeed_mpi deepspeed_slurm deepscale deepscale_config "
        "user_script rank local_rank detect_nvlink_pairs"
    ),
    _LOG: (
        "log_dir log_interval log_grad_pct_zeros log_param_norm log_grad_norm log_optimizer_states "
        "steps_per_print peak_theoretical_tflops char_level_ppl"
    ),
    _WATCH: (
        "use_wandb wandb wandb_group wandb_run_name wandb_team wandb_project wandb_host "
        "wandb_init_all_ranks use_comet comet_workspace comet_project comet_experiment_name comet_tags "
        "comet_others comet_experiment tensorboard tensorboard_dir csv_monitor"
    ),
    _PROFILE: (
        "memory_profiling memory_profiling_path profile profile_step_start profile_step_stop "
        "profile_backward wall_clock_breakdown flops_profiler comms_logger dump_state "
        "log_gradient_noise_scale gradient_noise_scale_n_batches gradient_noise_scale_cpu_offload"
    ),
    _KERNEL: (
        "layernorm_fusion rmsnorm_fusion use_flashattn_swiglu scaled_upper_triang_masked_softmax_fusion "
        "scaled_masked_softmax_fusion bias_dropout_fusion rope_fusion fused_kernels_build_path "
        "attention_softmax_in_fp32 fp16_lm_cross_entropy onnx_safe rotary_save_freqs_buffer "
        "use_cpu_initialization lazy_mpu_init"
    ),
    _RECOMPUTE: (
        "checkpoint_num_layers deepspeed_activation_checkpointing "
        "activation_checkpointing contiguous_checkpointing checkpoint_in_cpu synchronize_each_layer "
        "partition_activations"
    ),
    _DATA: "data_impl mmap_warmup num_workers use_shared_fs",
    _DATASET: "short_seq_prob tokenizer_type merge_file",
    _EVAL: "eval_interval eval_iters eval_results_prefix eval_tasks do_train do_valid do_test",
    _HELD_OUT: (
        "valid_data_paths test_data_paths valid_data_weights test_data_weights valid_label_data_paths "
        "test_label_data_paths valid_reward_data_paths test_reward_data_paths"
    ),
    _SAVE: (
        "extra_save_iters save_iters keep_last_n_checkpoints no_save_optim no_save_rng s3_path "
        "s3_chunk_size checkpoint_validation_with_forward_pass exit_interval"
    ),
    _LOAD: (
        "load iteration no_load_optim no_load_rng use_checkpoint_lr_scheduler config_files git_hash "
        "adlr_autoresume adlr_autoresume_interval"
    ),
    _GENERATE: (
        "text_gen_type precompute_model_name temperature top_p top_k return_logits maximum_tokens "
        "prompt_end sample_input_file sample_output_file num_samples recompute"
    ),
    _OTHER_MODEL: (
        "rms_norm_epsilon scalenorm_epsilon rpe_num_buckets rpe_max_distance param_sharing_style "
        "gmlp_attn_dim mamba_selective_scan_fusion mamba_causal_conv_fusion mamba_inner_func_fusion "
        "mamba_selective_fp32_params mamba_use_bias_in_conv mamba_use_bias_in_linears dim_att head_size "
        "ffn_dim"
    ),
    _MOE: "moe_expert_interval moe_top_k moe_router_type moe_lbl_in_fp32 moe_jitter_eps",
    _MUP: (
        "coord_check save_base_shapes base_shapes_file mup_init_scale mup_attn_temp mup_output_temp "
        "mup_embedding_mult mup_rp_embedding_mult mup_width_scale"
    ),
    _POST: (
        "dpo_fp32 dpo_reference_free dpo_beta kto_fp32 kto_desirable_weight kto_undesirable_weight "
        "kto_beta fp32_reinforce kl_impl kl_div_beta reinforce_leave_one_out serve_model_weights "
        "weight_server_port online_dataserver_ips online_dataserver_ports pos_train_data_paths "
        "neg_train_data_paths pos_train_label_data_paths neg_train_label_data_paths pos_valid_data_paths "
        "neg_valid_data_paths pos_valid_label_data_paths neg_valid_label_data_paths pos_test_data_paths "
        "neg_test_data_paths pos_test_label_data_paths neg_test_label_data_paths"
    ),
    _DERIVED: "batch_size optimizer_type dynamic_loss_scale loss_scale",
    _SCALER: "loss_scale_window hysteresis min_scale",
    _TE: (
        "te_columnparallel te_rowparallel te_layernorm_mlp te_mha te_fp8_format te_fp8_wgrad "
        "te_fp8_amax_history_len te_fp8_amax_compute_algo te_fp8_margin te_fp8_mha"
    ),
    _COMM: (
        "distributed_backend communication_data_type fp32_allreduce prescale_gradients "
        "gradient_predivide_factor elasticity"
    ),
    _AUTOTUNE: "autotuning autotuning_run",
}

#: Keys that are ignored, and why.
IGNORED = {key: reason for reason, keys in _BY_REASON.items() for key in keys.split()}
