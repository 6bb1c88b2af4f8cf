# The two images, included by the Makefile.
#   make images            MNIST is downloaded during the build
#   make images DATA=DIR   MNIST is taken from the IDX files (gz or raw) in DIR
#   make test-images       builds them, then runs both as operators do

DOCKER ?= docker
IMAGES := mnist-tf mnist-torch
IMAGE_VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' jobs/__init__.py)
IMAGE_TAG ?= $(IMAGE_VERSION)
IMAGE_BASE ?= python:3.13-slim-trixie
IMAGE_GIT_SHA = $(shell git rev-parse HEAD 2>/dev/null)$(shell test -z "$$(git status --porcelain 2>/dev/null)" || echo -dirty)
DATA ?=

.PHONY: images test-images $(IMAGES:%=image-%)

images: $(IMAGES:%=image-%) ## both images; DATA=DIR takes MNIST from a folder
	@for image in $(IMAGES); do \
		$(DOCKER) image inspect --format '{{.Size}}' "$$image:$(IMAGE_TAG)" \
		| awk -v name="$$image:$(IMAGE_TAG)" '{ printf "%-24s %.2f GB\n", name, $$1 / 1e9 }'; \
	done

# Docker reads nothing outside the build context, so a folder's files are copied into it.
ifneq ($(DATA),)
IMAGE_DATA := build/mnist
.PHONY: $(IMAGE_DATA)
$(IMAGE_DATA):
	@rm -rf $@ && mkdir -p $@
	@find -L "$(DATA)" -maxdepth 1 -type f \( -name '*ubyte' -o -name '*ubyte.gz' \) -exec cp {} $@/ \; || true
	@test -n "$$(ls $@)" || { echo "error: DATA=$(DATA) holds no IDX files (*ubyte or *ubyte.gz)" >&2; exit 2; }
	@chmod -R u+rwX,go+rX $@
endif

$(IMAGES:%=image-%): image-%: $(IMAGE_DATA)
	DOCKER_BUILDKIT=1 $(DOCKER) build --file docker/Dockerfile --target $* \
		--build-arg BASE=$(IMAGE_BASE) \
		--build-arg MNIST_FROM=$(if $(DATA),folder,download) \
		$(if $(MNIST_MIRRORS),--build-arg MNIST_MIRRORS=$(MNIST_MIRRORS)) \
		--build-arg VERSION=$(IMAGE_VERSION) \
		--build-arg GIT_SHA=$(IMAGE_GIT_SHA) \
		--build-arg IMAGE_REF=$*:$(IMAGE_TAG) \
		--tag $*:$(IMAGE_TAG) --tag $*:latest .

test-images: images .venv/.synced ## build both images and run them as operators do
	MNIST_JOBS_REQUIRE_IMAGES=1 MNIST_JOBS_DOCKER=$(DOCKER) MNIST_JOBS_IMAGE_TAG=$(IMAGE_TAG) \
		.venv/bin/python -m pytest tests/docker
