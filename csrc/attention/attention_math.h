// SPDX-License-Identifier: Apache-2.0
// Formulas of low-rank factorized attention, shared by the CPU and CUDA.
//
// LAMA (Mehta, Rangwala and Ramakrishnan, "Low Rank Factorization for Compact Multi-Head
// Self-Attention", arXiv 1912.00835) with the temperature of TempScale (Zhou et al., "Length-Induced
// Embedding Collapse", ACL 2025). For token t of a sequence, with key k_t and value v_t, and head j:
//   z_tj = q_j . k_t + bias_tj          q: effective factor, Q diag(P'c) of the paper
//   a_tj = tanh z_tj, or z_tj
//   f_tj = a_tj / |a_t|, or a_tj        |a_t|: l2 norm over the heads
//   s_tj = (f_tj + mask_t) / T_j
//   A_tj = exp(s_tj - lse_j)            lse_j = log sum_t exp s_tj
//   out_j = sum_t A_tj v_t
// Where we differ from the paper's public form: a token whose heads are all zero has no direction; its
// f is 0 and it passes no gradient back (|a_t| is taken as at least kLeastNorm). A sequence without
// valid tokens gives out = 0 and lse = -infinity.
//
// Backward, with S_j = out_j and G_j = d loss / d out_j, h_j = d loss / d lse_j:
//   dA_tj = v_t . G_j        ds = A (dA - S_j . G_j + h_j)      dT_j = -sum_t ds s_tj / T_j
//   df = ds / T_j            da = (df - f (f . df)) / |a|       dz = da (1 - a^2)
//   dv_t = sum_j A_tj G_j    dk_t = sum_j dz_tj q_j             dq_j = sum_t dz_tj k_t
#pragma once

namespace ec {

enum class Activation : int { kNone = 0, kTanh = 1 };
enum class HeadNorm : int { kNone = 0, kL2 = 1 };

constexpr double kLeastNorm = 1e-12;
constexpr double kLog2E = 1.44269504088896340736;

// Scores of tanh or of unit length lie in [-1, 1]. Weights taken relative to the bound 1 instead of the
// largest score stay normal floats down to this temperature: exp(-2 / T) > 2^-116.
constexpr double kLeastBoundedTemperature = 0.025;

// Weights are exp(s - r) for a reference r; it moves only when a score is this far (in powers of 2)
// above it.
constexpr float kReferenceSlack = 16.0f;

// 2^x on [-1/2, 1/2]: minimax, relative error 1.9e-9, in float arithmetic 7.9e-8.
constexpr int kExp2Degree = 6;
constexpr float kExp2Coefficient[kExp2Degree + 1] = {1.0f,
                                                     0.6931471824645996f,
                                                     0.24022646248340607f,
                                                     0.05550328642129898f,
                                                     0.009618489071726799f,
                                                     0.0013399930903688073f,
                                                     0.0001534581242594868f};

// tanh x = x + x^3 P(x^2) on [-kTanhSmall, kTanhSmall]: minimax, relative error 4.2e-9, in float
// arithmetic 7.2e-8.
constexpr float kTanhSmall = 0.625f;
constexpr int kTanhDegree = 4;
constexpr float kTanhCoefficient[kTanhDegree + 1] = {-0.3333328366279602f, 0.13331490755081177f,
                                                     -0.05374349653720856f, 0.02065058797597885f,
                                                     -0.005717045161873102f};
constexpr float kTanhOne = 9.25f;  // tanh is 1 in float from here on

}  // namespace ec
