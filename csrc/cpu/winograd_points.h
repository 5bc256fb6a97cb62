// Winograd's transforms of a window and of its products, a vector of channels at a time.
#pragma once
#include "vector.h"

namespace de {
namespace {

// F(M x M, 3 x 3): one dimension of B^T d, G g and A^T m. ops/conv3x3.py says why these points.
template <int M>
struct Winograd;

// Points 0, 1, -1 and infinity: Lavin and Gray 2016, 4.1.
template <>
struct Winograd<2> {
  static DE_INLINE void input(const Float (&d)[4], Float (&v)[4]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  static DE_INLINE void weight(const Float (&g)[3], Float (&v)[4]) {
    const Float even = (g[0] + g[2]) * 0.5f, odd = g[1] * 0.5f;
    v[0] = g[0];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = g[2];
  }
  static DE_INLINE void output(const Float (&m)[4], Float (&y)[2]) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
};

// Points 0, P, -P, Q, -Q and infinity.
template <>
struct Winograd<4> {
  static constexpr float P = 0.6875f, Q = 1.375f, PP = P * P, QQ = Q * Q;  // all exact

  static DE_INLINE void input(const Float (&d)[6], Float (&v)[6]) {
    const auto add = [](Float a, float b, Float c) { return multiply_add(splat(b), a, c); };
    v[0] = add(d[0], PP * QQ, add(d[2], -(PP + QQ), d[4]));
    const Float even_p = add(d[2], -QQ, d[4]), odd_p = add(d[1], -QQ, d[3]);
    v[1] = add(odd_p, P, even_p);
    v[2] = add(odd_p, -P, even_p);
    const Float even_q = add(d[2], -PP, d[4]), odd_q = add(d[1], -PP, d[3]);
    v[3] = add(odd_q, Q, even_q);
    v[4] = add(odd_q, -Q, even_q);
    v[5] = add(d[1], PP * QQ, add(d[3], -(PP + QQ), d[5]));
  }
  // (1, a, a^2) over the product of a's distances to the other points.
  static DE_INLINE void weight(const Float (&g)[3], Float (&v)[6]) {
    constexpr double p = P, q = Q, pp = p * p, qq = q * q, of_p = 2 * (pp - qq), of_q = 2 * (qq - pp);
    const auto pair = [&](double point, double distance, Float& plus, Float& minus) {
      const float square = (float)(1 / distance), one = (float)(1 / (distance * point * point));
      const Float even = multiply_add(splat(square), g[2], g[0] * one), odd = g[1] * (float)(1 / (distance * point));
      plus = even + odd;
      minus = even - odd;
    };
    v[0] = g[0] * (float)(1 / (pp * qq));
    pair(p, of_p, v[1], v[2]);
    pair(q, of_q, v[3], v[4]);
    v[5] = g[2];
  }
  static DE_INLINE void output(const Float (&m)[6], Float (&y)[4]) {
    const auto add = [](Float a, float b, Float c) { return multiply_add(splat(b), a, c); };
    const Float even_p = m[1] + m[2], odd_p = m[1] - m[2];
    const Float even_q = m[3] + m[4], odd_q = m[3] - m[4];
    y[0] = m[0] + (even_p + even_q);
    y[1] = add(odd_q, Q, odd_p * P);
    y[2] = add(even_q, QQ, even_p * PP);
    y[3] = add(odd_q, Q * QQ, add(odd_p, P * PP, m[5]));
  }
};

// B^T d B: column by column, then row by row; put(point, vector) takes the results.
template <int M, class Put>
DE_INLINE void transform_input(const Float (&d)[M + 2][M + 2], Put put) {
  constexpr int N = M + 2;
  Float half[N][N];
  for (int j = 0; j < N; ++j) {
    Float column[N], v[N];
    for (int i = 0; i < N; ++i) column[i] = d[i][j];
    Winograd<M>::input(column, v);
    for (int i = 0; i < N; ++i) half[i][j] = v[i];
  }
  for (int i = 0; i < N; ++i) {
    Float v[N];
    Winograd<M>::input(half[i], v);
    for (int j = 0; j < N; ++j) put(i * N + j, v[j]);
  }
}

// G g G^T, in the same way.
template <int M, class Put>
DE_INLINE void transform_weight(const Float (&g)[3][3], Put put) {
  constexpr int N = M + 2;
  Float half[N][3];
  for (int j = 0; j < 3; ++j) {
    const Float column[3] = {g[0][j], g[1][j], g[2][j]};
    Float v[N];
    Winograd<M>::weight(column, v);
    for (int i = 0; i < N; ++i) half[i][j] = v[i];
  }
  for (int i = 0; i < N; ++i) {
    Float v[N];
    Winograd<M>::weight(half[i], v);
    for (int j = 0; j < N; ++j) put(i * N + j, v[j]);
  }
}

// A^T m A of the vectors that get(point) gives.
template <int M, class Get>
DE_INLINE void transform_output(Get get, Float (&y)[M][M]) {
  constexpr int N = M + 2;
  Float half[M][N];
  for (int j = 0; j < N; ++j) {
    Float m[N], column[M];
    for (int i = 0; i < N; ++i) m[i] = get(i * N + j);
    Winograd<M>::output(m, column);
    for (int i = 0; i < M; ++i) half[i][j] = column[i];
  }
  for (int i = 0; i < M; ++i) Winograd<M>::output(half[i], y[i]);
}

}  // namespace
}  // namespace de
