//! Measures how robust visual question answering models are when images, questions or answers shift
//! away from the training data.
//!
//! # The rooms
//!
//! Each room names only rooms of the levels above it; `tests/architecture.rs` holds the map to that.
//!
//! | level | room | owns |
//! |---|---|---|
//! | 0 | [`error`] | the one error type |
//! | 0 | [`random`] | seeded random numbers, by position |
//! | 1 | [`tensor`] | host tensors: dtype, shape, bytes |
//! | 1 | [`stats`] | intervals, correlations, paired tests (the only room that names statrs) |
//! | 2 | [`graph`] | ONNX as a value: typed builder, shape rules, protobuf (with report the only room that names prost); runs nothing |
//! | 2 | [`score`] | answer normalisers and metrics: strings and numbers in, numbers out |
//! | 2 | [`hub`] | models and datasets of the Hub as verified local files (the only room that names hf-hub and ureq) |
//! | 2 | [`store`] | raw answers, distances and curves in SQLite (the only room that names rusqlite) |
//! | 2 | [`shift`] | distance of features from a reference (the only room that names ndarray-linalg and cblas-sys) |
//! | 3 | [`runtime`] | sessions and device tensors (the only room that names ort) |
//! | 3 | [`data`] | questions, annotations, images on disk; fetching them; the miniature world (the only room that names parquet, flate2, tar and zip) |
//! | 4 | [`model`] | model families as graph builders, preprocessing, decoding (the only room that names tokenizers) |
//! | 4 | [`train`] | optimisers, methods, schedules, the loop, checkpoints; knows no dataset, metric or store |
//! | 5 | [`suite`] | composes the others: a validated plan and its execution |
//! | 6 | [`report`] | tables, figures and pages from results (names only error, score, stats, store, data and suite; the only room that names ttf-parser, csv and crc32c; with graph the only room that names prost) |
//!
//! The binary (`src/main.rs`, `src/cli/`) comes last: it alone prints, draws progress and exits, and
//! is the only room that names clap, clap_complete, clap_mangen and indicatif.
//!
//! # Decisions
//!
//! - **Images are decoded and resized to Pillow's bytes.** A pixel that is off by one level moves logits by hundredths,
//!   which is enough to flip answers. `mozjpeg` gives libjpeg-turbo's bytes where a pure Rust decoder is up to four
//!   levels off, and `model::resample` gives Pillow 13's where a general library is up to two levels off. Pillow before
//!   13 starts with the rows for every shape and so differs by a level in images that become much flatter.
//!   Transparency is dropped and EXIF orientation ignored, as by `Image.open(path).convert("RGB")`.
//! - **Linear layers are `MatMul` with a transposed initialiser.** Small models have it folded and packed per session;
//!   for weights above 256 MiB in the compute dtype folding and packing are off, the runtime fuses the transposition into
//!   the product, and all sessions read the mapped checkpoint. The size alone decides, and the choice is part of an
//!   answer's key.
//! - **Small models run as replicas, one per thread; of a large one the threads share each operator.** Replicas wait for
//!   nobody, and their answers do not depend on the number of threads. The shared pool does not spin: idle threads that
//!   spin hold the cores that prepare the next batch, and easy-VQA is answered at less than half the speed.
//! - **Batches are a function of the question list alone**, and a batch is committed whole. A run that was killed
//!   therefore computes exactly the batches it would have computed, and ends with the same bytes.
//! - **The prompt graph lays a row out as image, padding, text** and masks by position, so that the image part is the
//!   same slice in every row and padding changes no sum.
//! - **The last layer of the decoder computes what is read only**: the last token of a prompt, and while training the
//!   tokens whose next one is part of an answer; its keys and values are computed for all. All rows of a training batch
//!   end together, so that these tokens are the same columns in each.
//! - **Recomputed layers are tied to the incoming gradient** through the shape of what they read, plus zero times a size
//!   of the gradient: no arithmetic on elements, so the gradients are the same to the bit, and the runtime can neither
//!   merge the two computations nor start the second early.
//! - **Dropout masks are fed**: bits from (seed, micro-step, layer, position), drawn on the threads that prepare batches.
//!   The CPU has no fast integer arithmetic for drawing them in the graph.
//! - **Features are matched to the rows of a training batch by a product with a 0-1 matrix**: the gradient of picking
//!   rows would be added up by one thread, element by element.
//! - **ONNX files of opset 13 on are brought to opset 23 while they are read**, so that each operator has one row, with
//!   one shape rule and one gradient.
//! - **A run's folder becomes the model.** It is made in a folder within and moved file by file, `config.json` last.
//! - **A step of a method is measure, decide, update.** A few numbers of each tensor are taken in the pass that measures the
//!   norm of the gradients; plain code turns those of all tensors into the ones that the update needs, in double
//!   precision, where a hyper-gradient or a sum over tensors is a line and can be read; nodes make the new tensor. A
//!   tensor whose numbers say that nothing is to be changed takes the optimiser's own step, to the bit.
//! - **Numbers of tensors live on the host** (projection strengths, radii, the moments of their optimisers) and are JSON in
//!   a checkpoint. Tensors stay on the device; an anchor is the start values themselves, and none is kept where it is the
//!   origin.
//! - **The numbers that all methods have are taken by plain code where tensors of a small model lie in host memory**: norms
//!   and inner products of gradient and deviation, in one pass. As nodes they are seven passes and a start of a session
//!   for each tensor, a tenth of a step; that form is for devices and for models whose sessions share all threads, and
//!   a test holds one to the other.
//! - **DiGraP keeps the last step's tensor, not the last projection**, which is a multiple of that one's deviation. The
//!   tensor was there anyway, so that nothing is written.
//! - **Updates run tensor by tensor, through one session per kind of tensor.** It is as fast as sessions for fixed
//!   shapes (17 microseconds per tensor beside the arithmetic), needs no grouping, and old and new values exist side by
//!   side for a few tensors at a time. Each thread has sessions of its own and takes the next tensor, which for small
//!   tensors is twice as fast as threads that share each operator. The norm of the gradients is measured first, so that
//!   one that is not finite stops a run before anything has changed.
//! - **LoRA weights are interpolated by scaling `B`**, so that a merged WiSE-FT model is still an adapter that PEFT reads.
//! - **The linear probe of LP-FT and the fine-tuned end of WiSE-FT are runs of their own** below the output, shared by all
//!   runs of a sweep that do not change them.
//! - **A run's checkpoint is a folder per step that appears by a single rename**, with the best parameters as a second
//!   name of their file; the one before it goes only then. Metrics are cut back to the checkpoint's length.
//! - **A dataset's files are found below its folder, under any leading folders**, since archives bring their own; files that
//!   several datasets are made on (COCO, VQAv2) are also found in `coco` and `vqav2` beside it. What is known of a dataset
//!   that its files do not say is in its row; what its own measures need is in its relations, position for position.
//! - **Images in parquet files stay there.** Loading reads the columns of questions alone. A page, the least that can be
//!   decompressed, is read when one of its images is asked for, and a few pages are kept for all threads together: they
//!   read in order, side by side. Row groups may be of any length, since pages before the wanted one are skipped by their
//!   heads, from the nearest place where reading stopped.
//! - **The Hub's addresses, requests for lists and the layout of its cache come from hf-hub 0.5; files come through ureq.**
//!   hf-hub 0.5 downloads files too, but checks neither size nor hash before a file counts as there, appends whole
//!   answers to parts, and hides status and headers. With ureq, which it is built on, the rest is a page of code.
//!   hf-hub 1.0 needs an asynchronous runtime, a second HTTP client and the Xet client: 284 crates in place of 64, which
//!   take 4.6 times as long to compile.
//! - **One request tells everything about a revision**: commit, files, sizes and hashes. A file's hash is its name in the
//!   cache, so that what is there is known without asking. Files below 16 MiB are hashed each time they are used, larger
//!   ones when they come and by `fetch --verify`.
//! - **Of a commit's folder the configuration is linked last**, so that a folder that has it has everything.
//! - **The miniature world is a function of (version, seed, set, key)**, each through its own branch of random numbers, so
//!   that no set needs another one and pictures are drawn when they are read. A shifted set starts from the narrow picture
//!   and questions of its key: what it loses against strength 0 is lost to the shift alone.
//! - **The world's objects fill cells that are patches of its model**, and its broad mixture holds patterns of one object:
//!   a million parameters learn to see from them in minutes, where scenes alone leave them on the priors of the answers.
//! - **A store knows which questions were asked**, by a digest of their texts, identifiers and human answers, before any has
//!   an answer, so that merged parts of a run are known to be whole. Half of an answer's fingerprint is of the question's
//!   text: reports and comparisons refuse answers to another text without looking for images.
//! - **`report` also names `score` and `suite`**, whose results are what it shows. It computes nothing from them.
//! - **Figures are laid out once and drawn on two canvases**, SVG text and PNG, so that both show the same. plotters writes
//!   the colour into each element, which a dark page cannot change, and has no tooltips; resvg, to draw PNG files from SVG
//!   ones, adds a tenth to a cold build. Texts are measured with a subset of DejaVu Sans, the font of the PNG files.
//! - **A suite's average is a plain mean over the datasets of a group**, however groups lie within groups, and there is none
//!   where one of them has no accuracy. `benchmarks/paper` has the paper's tables as data, and a test recomputes every
//!   derived cell of theirs with the same mean.
//! - **Of a reference's features the moments are kept, in double precision**, with those of third and fourth order that
//!   Ledoit and Wolf's shrinkage asks for: a row and a number. Cut-off, shrinkage and variant are chosen at each use. The
//!   mean of the first block is taken off all rows, which is as safe as centring each block and leaves one product a row.
//! - **Eigenvectors come from `dsyevd`, declared here**: ndarray-linalg calls `dsyev`, which takes five times as long for
//!   2,048 features.
//! - **`shift` starts itself again where OpenBLAS does not know the processor** and has taken the kernels of a Pentium 4, a
//!   quarter as fast: it chooses when it is loaded, by `OPENBLAS_CORETYPE`. So does `vqa --shift`; other verbs compute
//!   little with it.
//! - **An image or a question alone is not a masked prompt but a graph of its own.** Masked keys have no weight, and rotary
//!   embeddings see differences of positions alone, so the numbers are those of the masked prompt at a fraction of the work.
//! - **A fit is added up in the order of the questions, in segments that are merged**, whichever replica is ready first: the
//!   same questions give the same bytes, also after a kill. It lies beside the store, under a digest of all it depends on.
//! - **Distances of every question are stored, features are not.** What is told of shift follows from the distances alone,
//!   so that pages and figures need no model; of the training set a seeded sample of 10,000 has its distances kept.
//! - **`.npy` files have a reader of our own.** Their header is a dictionary of three known keys; the known crates bring a
//!   grammar compiler, 12 crates, to read it.
//! - **Flips compare answers as they are**, but for white space around them, as the notebooks of IV-VQA and CV-VQA do: their
//!   human answers all agree, where the official metric normalises nothing either. Their intervals are clustered by the
//!   image before the edit, since edits of one image stand and fall together.
//! - **Intervals of correlations over samples come from drawing whole clusters**, with the ranks of every draw recomputed:
//!   the ranks of the whole sample leave out how ranks vary, and the draws' own ones follow in linear time from the order of
//!   the whole. The area under a ROC curve has a formula for clusters and needs no draws.
//! - **A page's data are scripts in columns.** A page that was opened from disk may load scripts but not fetch files. Each
//!   dataset's questions, answers, scores and distances are columns that the explorer reads once and filters by plain
//!   loops; words are looked for in one long text. What is shown of one sample alone lies in pages of 250. Strings reach
//!   scripts as JSON without `<`, and the document as text nodes alone.
//! - **Tests drive Chromium through pipes** with a small client of the DevTools protocol; the known crates bring an
//!   asynchronous runtime and a web socket.
//! - **Shards are by image**: a digest of the image's identifier says whose it is, so that questions about an image stay together
//!   and processes need not know of each other. Each has a store of its own, since SQLite's locks cannot be relied upon across
//!   machines; folding compares row by row, in one transaction.
//! - **The numbers of settings stay when their answers are removed**: another process may hold one and write under it.
//!   Settings and training runs that nothing refers to are neither listed, exported nor imported.
//! - **A gap in a damaged store is searched by keys that need not exist**: halfway between two known identifiers, in the signs
//!   that identifiers have, a seek reaches a leaf that no walk from either end comes to. Rows that stand in no order are told
//!   by the longest ascending subsequence.
//! - **A folder is replaced only if all in it has names that such a folder has**, so that nothing of somebody else goes with it.
//!   A single file takes the place of what a link leads to; what is no file gets its bytes as they come.
//! - **What a store is exported as depends on its rows alone**, not on their numbers or on the time: settings are numbered by
//!   their texts, TensorBoard's and MLflow's times are steps. MLflow's plain files were chosen over W&B's offline folders, whose
//!   form is that of its own client.
//! - **A report shows what is complete, dataset by dataset, and says what it leaves out**: one run that was stopped does not
//!   keep others from being shown. A comparison and an export refuse it, since nobody reads what they leave out.
//! - **Intervals are clustered by what stands and falls together**: questions about one image, and what was made from one
//!   question by edits of image or words. An edited image of IV-VQA is another image, but no other evidence.
//! - **The gate's test goes over all signs, cluster by cluster, and draws none**: scores are multiples of a thirtieth, so that
//!   the distribution over all signs is added up in milliseconds. The p-value is one number, whatever the seed, and exact
//!   for few flips too, where a bootstrap and a normal distribution are not. Thousands of differing clusters are normal.
//! - **A baseline is answers, not scores.** Both sides of a comparison are scored anew by one metric, and what a baseline
//!   scored when it was written is told only where it scores otherwise now.

pub mod data;
pub mod error;
pub mod graph;
pub mod hub;
pub mod model;
pub mod random;
pub mod report;
pub mod runtime;
pub mod score;
pub mod shift;
pub mod stats;
pub mod store;
pub mod suite;
pub mod tensor;
pub mod train;
