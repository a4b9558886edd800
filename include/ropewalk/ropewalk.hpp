// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The numeric library: everything from core to eval. Files and tokenizers come with hub.hpp.

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/eval/answers.hpp"
#include "ropewalk/eval/bootstrap.hpp"
#include "ropewalk/eval/perplexity.hpp"
#include "ropewalk/eval/protocol_presets.hpp"
#include "ropewalk/eval/summary.hpp"
#include "ropewalk/eval/words.hpp"
#include "ropewalk/model/cost.hpp"
#include "ropewalk/model/generate.hpp"
#include "ropewalk/model/kv_shift.hpp"
#include "ropewalk/rope.hpp"
#include "ropewalk/rope/rotate.hpp"
