// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Umbrella of train/: the trainer, its schedules, and sequences to learn from.

#include "ropewalk/train/cost.hpp"
#include "ropewalk/train/document_sequences.hpp"
#include "ropewalk/train/init_weights.hpp"
#include "ropewalk/train/learning_rate.hpp"
#include "ropewalk/train/mixture.hpp"
#include "ropewalk/train/position_samples.hpp"
#include "ropewalk/train/token_windows.hpp"
#include "ropewalk/train/trainer.hpp"
